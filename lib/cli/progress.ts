/**
 * Progress for a person who waits.
 *
 * @module
 */
import path from 'node:path';
import type { WriteStream } from 'node:tty';

import { Engine } from '../index';
import type { EngineConfig } from '../../types/options';

const CLEAR_LINE = '\r\x1b[2K';

/** A line on a terminal that shows how far something is. On anything else it shows nothing. */
export class ProgressLine {
  private shown = -1;

  constructor(
    /** What is going on, such as "loading a-model". */
    private readonly what: string,
    private readonly terminal: Pick<WriteStream, 'write' | 'isTTY'> = process.stderr,
  ) {}

  /** Shows a fraction in [0, 1]. */
  readonly update = (fraction: number): void => {
    const percent = Math.floor(fraction * 100);
    if (!this.terminal.isTTY || percent === this.shown) return;
    this.shown = percent;
    this.terminal.write(`${CLEAR_LINE}heddle: ${this.what} ${percent} %`);
  };

  /** Wipes the line. */
  done(): void {
    if (this.shown >= 0) this.terminal.write(CLEAR_LINE);
    this.shown = -1;
  }
}

/** `Engine.create` with {@link ProgressLine} on stderr. */
export async function openEngine(config: EngineConfig): Promise<Engine> {
  const progress = new ProgressLine(`loading ${path.basename(path.resolve(config.model))}`);
  try {
    progress.update(0);
    return await Engine.create({ ...config, onProgress: progress.update });
  } finally {
    progress.done();
  }
}
