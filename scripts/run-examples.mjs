// Runs every numbered example and fails when one fails, hangs or prints nothing.
import { spawnSync } from 'node:child_process';

import { listFiles, main, root } from './common.mjs';

const TIME_LIMIT_MS = 120_000;

await main(() => {
  const examples = listFiles('examples').filter((file) => /^examples\/\d[^/]*\.mjs$/.test(file));
  if (examples.length === 0) throw new Error('no example was found');
  const failed = examples.filter((file) => !succeeds(file));
  console.log(`examples: ${examples.length - failed.length} of ${examples.length} run`);
  return failed.length > 0 ? 1 : 0;
});

function succeeds(file) {
  const { status, signal, error, stdout, stderr } = spawnSync(process.execPath, [file], {
    cwd: root,
    encoding: 'utf8',
    input: '',
    timeout: TIME_LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  const fault =
    error?.message ??
    (status !== 0 ? `ended with ${signal ?? `exit code ${status}`}` : stdout.trim() ? '' : 'printed nothing');
  console.log(`${fault ? 'FAILED' : 'ok'} ${file}${fault ? `: ${fault}\n${stdout}${stderr}` : ''}`);
  return !fault;
}
