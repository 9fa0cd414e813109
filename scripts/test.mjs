// `npm test`: sets up what is missing, runs the native tests and jest, and ends with "N passed, N failed".
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';

import { main, root, run } from './common.mjs';
import { runNativeTests } from './native-tests.mjs';
import { setUp } from './setup.mjs';

const JEST_RESULTS = path.join(root, 'build/test-results/jest.json');

await main(async () => {
  await setUp();
  const suites = [await nativeSuite(), await jestSuite()];
  console.log('');
  for (const { name, passed, failed, skipped } of suites) console.log(`${name}: ${counts(passed, failed, skipped)}`);
  const total = (key) => suites.reduce((sum, suite) => sum + suite[key], 0);
  console.log(counts(total('passed'), total('failed'), total('skipped')));
  return total('failed') > 0 ? 1 : 0;
});

function counts(passed, failed, skipped) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

/** Counts of a suite. One that breaks off or runs nothing has failed, whatever it counted. */
function suite(name, succeeded, passed, failed, skipped = 0) {
  const broken = failed === 0 && (!succeeded || passed === 0);
  if (broken) console.log(`${name}: ${passed === 0 ? 'no test ran' : 'broke off'}`);
  return { name, passed, failed: broken ? 1 : failed, skipped };
}

async function nativeSuite() {
  console.log('native tests');
  try {
    const { code, signal, output } = await runNativeTests('shipped', undefined, { capture: true });
    process.stdout.write(output);
    if (signal) console.log(`the native tests ended with ${signal}`);
    const counts = /^(\d+) passed, (\d+) failed, (\d+) skipped$/m.exec(output) ?? [null, 0, 0, 0];
    const [passed, failed, skipped] = counts.slice(1).map(Number);
    return suite('native', code === 0, passed, failed, skipped);
  } catch (error) {
    console.log(error.message);
    return suite('native', false, 0, 0);
  }
}

async function jestSuite() {
  mkdirSync(path.dirname(JEST_RESULTS), { recursive: true });
  rmSync(JEST_RESULTS, { force: true });
  const jest = path.join(root, 'node_modules/jest/bin/jest.js');
  const { code } = await run(
    process.execPath,
    [jest, '--json', `--outputFile=${JEST_RESULTS}`, '--reporters=default'],
    {
      mayFail: true,
      capture: false,
    },
  );
  const results = readJestResults();
  for (const name of skippedTests(results)) console.log(`skipped: ${name}`);
  // A file that does not even load counts as one failure beside the failed tests of the others.
  const unloaded = results.testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0);
  const { numPassedTests: passed, numFailedTests: failed, numPendingTests: skipped } = results;
  return suite('jest', code === 0, passed, failed + unloaded.length, skipped);
}

function readJestResults() {
  try {
    return JSON.parse(readFileSync(JEST_RESULTS, 'utf8'));
  } catch {
    return { testResults: [], numPassedTests: 0, numFailedTests: 0, numPendingTests: 0 };
  }
}

function skippedTests(results) {
  return results.testResults
    .flatMap((file) => file.assertionResults)
    .filter((test) => test.status === 'pending')
    .map((test) => test.fullName);
}
