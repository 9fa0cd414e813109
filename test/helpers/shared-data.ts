/**
 * Data too big for the repository (reference models and golden results), which lives beside it in `../shared`, or where
 * `HEDDLE_TEST_DATA` says. Suites that need it run when it is there and show up as skipped, by name, when it is not.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';

export const sharedDataRoot = process.env['HEDDLE_TEST_DATA'] ?? path.resolve(__dirname, '../../../shared');

/** Absolute path of a file or folder below the shared data, whether or not it exists. */
export function sharedPath(relative: string): string {
  return path.join(sharedDataRoot, relative);
}

/** A `describe` whose body gets the absolute path of `relative`; skipped visibly when that does not exist. */
export function describeWithShared(name: string, relative: string, body: (absolutePath: string) => void): void {
  const absolutePath = sharedPath(relative);
  describe(name, () => {
    if (existsSync(absolutePath)) body(absolutePath);
    else it.skip(`needs the shared data ${relative}, which is absent`, () => undefined);
  });
}
