// node-llama-cpp beside ours: its program and GGUF files of our shapes, kept in a cache folder outside the repository.
import {
  copyFileSync,
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { finished } from 'node:stream/promises';

import { announce, root, run } from '../../scripts/common.mjs';
import { SHAPES } from './shapes.mjs';

const SOURCES = path.join(process.env.HEDDLE_TEST_DATA ?? path.resolve(root, '../shared'), 'peers');
const PACKAGE = 'node-llama-cpp@3.22.1';

/** The peer could not be made ready; the message says why. */
export class PeerMissing extends Error {}

/**
 * Makes the peer ready for a shape and returns the command that times it. What is not in the cache yet is installed only
 * with `install`: it takes most of a gigabyte from package registries. With `avx2` it is as on a machine without AVX-512.
 * Its weights are of `type`: bf16 or q8_0.
 */
export async function preparePeer(shape, { cache, install, avx2 = false, type = 'bf16' }) {
  if (!existsSync(SOURCES)) throw new PeerMissing(`its program is not here (${SOURCES})`);
  if (!existsSync(path.join(cache, 'node_modules/node-llama-cpp'))) {
    if (!install) throw new PeerMissing(`node-llama-cpp is not in ${cache}; --peer installs it there`);
    await installPackage(cache);
  }
  const model = path.join(cache, `llama-${shape}-${type}.gguf`);
  if (!existsSync(model)) await writeModel({ shape, type }, model, { cache, install });
  await readThrough(model);
  const program = installProgram(avx2 ? await limitToAvx2(cache) : cache);
  return ({ prompt, generate, sequences = 1, threads }) =>
    [program, model, prompt, generate, sequences, threads].map(String);
}

/** The peer's program beside its node_modules, where its imports resolve. */
function installProgram(folder) {
  const program = path.join(folder, 'llama-cpp.mjs');
  copyFileSync(path.join(SOURCES, 'llama-cpp.mjs'), program);
  return program;
}

/** Another installation, with the one set of kernels that llama.cpp takes on a machine without AVX-512. */
async function limitToAvx2(cache) {
  const folder = path.join(cache, 'avx2');
  if (!existsSync(folder)) {
    const part = `${folder}.part`;
    rmSync(part, { recursive: true, force: true });
    mkdirSync(part);
    await run('cp', ['--archive', '--link', path.join(cache, 'node_modules'), part]);
    const binaries = path.join(part, 'node_modules/@node-llama-cpp/linux-x64/bins/linux-x64');
    const kernels = readdirSync(binaries).filter((file) => file.startsWith('libggml-cpu-'));
    if (!kernels.includes('libggml-cpu-haswell.so')) throw new PeerMissing(`no kernels for AVX2 in ${binaries}`);
    for (const file of kernels) if (file !== 'libggml-cpu-haswell.so') rmSync(path.join(binaries, file));
    renameSync(part, folder);
  }
  return folder;
}

async function installPackage(cache) {
  mkdirSync(cache, { recursive: true });
  writeFileSync(path.join(cache, 'package.json'), '{ "private": true }\n');
  const flags = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  await announce(`installing ${PACKAGE}`, () =>
    run('npm', ['install', ...flags, PACKAGE], { cwd: cache, quiet: true }),
  );
}

async function writeModel({ shape, type }, file, { cache, install }) {
  const python = path.join(cache, 'venv/bin/python');
  if (!existsSync(python)) {
    if (!install) throw new PeerMissing(`${path.basename(file)} is not in ${cache}; --peer makes it`);
    await announce('installing numpy and gguf', async () => {
      await run('python3', ['-m', 'venv', path.join(cache, 'venv')], { quiet: true });
      await run(python, ['-m', 'pip', 'install', '--quiet', 'numpy', 'gguf'], { quiet: true });
    });
  }
  const sizes = Object.entries(SHAPES[shape]).flatMap(([key, value]) => [`--${key}`, String(value)]);
  // Named at last, so that a run that breaks off leaves no half file.
  const part = `${file}.part`;
  await announce(`writing ${path.basename(file)}`, async () => {
    await run(python, [path.join(SOURCES, 'make_gguf.py'), '--out', part, '--type', type, ...sizes], { quiet: true });
    renameSync(part, file);
  });
}

/** Brings a file into the page cache. */
async function readThrough(file) {
  await finished(createReadStream(file, { highWaterMark: 1 << 24 }).resume());
}
