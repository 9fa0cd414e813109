// What the scripts share: where the repository is, running programs, and stamps that say whether a step is up to date.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Whether the script with this `import.meta.url` is the program, not an import of another one. */
export function isMain(moduleUrl) {
  return process.argv[1] !== undefined && moduleUrl === pathToFileURL(process.argv[1]).href;
}

/** Runs the body of a script: a failure is one message and exit code 1. */
export async function main(body) {
  try {
    const code = await body();
    if (typeof code === 'number') process.exitCode = code;
  } catch (error) {
    console.error(`heddle: ${error.message}`);
    process.exitCode = 1;
  }
}

/**
 * Runs a program in the repository. Its output passes through, or with `quiet` shows only when it fails; with `capture`
 * it comes back. Resolves to `{ code, signal, output }`; rejects when the program fails, unless `mayFail`.
 */
export function run(command, args, { cwd = root, env = {}, quiet = false, capture = false, mayFail = false } = {}) {
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: quiet || capture ? ['ignore', 'pipe', 'pipe'] : 'inherit',
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text) => (output += text));
  return new Promise((resolve, reject) => {
    child.on('error', (error) => reject(new Error(`cannot run ${command}: ${error.message}`, { cause: error })));
    child.on('close', (code, signal) => {
      if (code === 0 || mayFail) return resolve({ code, signal, output });
      if (output) process.stderr.write(output);
      reject(new Error(`'${[command, ...args].join(' ')}' ended with ${signal ?? `exit code ${code}`}`));
    });
  });
}

/** Whether a program can be started at all. */
export async function hasProgram(command) {
  try {
    return (await run(command, ['--version'], { capture: true, mayFail: true })).code === 0;
  } catch {
    return false;
  }
}

/** Every file below these files and folders, relative to the repository, sorted. What does not exist has no files. */
export function listFiles(...paths) {
  const files = paths.flatMap((relative) => {
    const absolute = path.join(root, relative);
    if (!existsSync(absolute)) return [];
    if (!statSync(absolute).isDirectory()) return [relative];
    return listFiles(...readdirSync(absolute).map((entry) => path.posix.join(relative, entry)));
  });
  return files.sort();
}

/** A hash of the names and contents of files and of anything else that a step depends on. */
export function fingerprint(files, ...rest) {
  const hash = createHash('sha256').update(JSON.stringify(rest));
  for (const file of files) hash.update(`\0${file}\0`).update(readFileSync(path.join(root, file)));
  return hash.digest('hex');
}

/** Whether a step last succeeded with this fingerprint. */
export function isUpToDate(stamp, print) {
  const file = path.join(root, stamp);
  return existsSync(file) && readFileSync(file, 'utf8') === print;
}

export function writeStamp(stamp, print) {
  const file = path.join(root, stamp);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, print);
}

/** Runs a step with a line before and after it. */
export async function announce(what, step) {
  const start = performance.now();
  console.error(`heddle: ${what} ...`);
  await step();
  console.error(`heddle: ${what}: done in ${Math.round((performance.now() - start) / 1000)} s`);
}
