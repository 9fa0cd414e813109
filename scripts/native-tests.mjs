// Builds and runs the native tests in one of their variants; the last line is "N passed, N failed, N skipped".
//
//   node scripts/native-tests.mjs shipped|sanitize|thread-sanitize|clang|cuda [filter]
import os from 'node:os';
import path from 'node:path';

import { buildNative } from './build-native.mjs';
import { hasProgram, isMain, main, root, run } from './common.mjs';
import { flags, sources } from './native-config.mjs';

const VARIANTS = {
  // The very code that the module ships.
  shipped: { variables: ['SHIPPED=1'], before: buildNative },
  sanitize: { variables: ['SANITIZE=address,undefined'] },
  'thread-sanitize': { variables: ['SANITIZE=thread'] },
  clang: { variables: ['CXX=clang++'], before: compileModuleWithClang },
  // The CUDA library, which `npm run build:cuda` builds; without it or without a device they skip.
  cuda: { makefile: 'test/cuda/Makefile' },
};

/** Builds, showing the compiler only when it fails, and runs. Resolves to the exit code and what the tests printed. */
export async function runNativeTests(variant, filter, { capture = false, env = {} } = {}) {
  const { makefile: file = 'test/native/Makefile', variables = [], before } = VARIANTS[variant];
  await before?.();
  const makefile = ['-f', path.join(root, file), '--no-print-directory', ...variables];
  const jobs = os.availableParallelism();
  await run('make', [...makefile, `-j${jobs}`, 'all'], { quiet: true });
  const sanitizers = { ASAN_OPTIONS: 'detect_leaks=1:strict_string_checks=1', UBSAN_OPTIONS: 'print_stacktrace=1' };
  const args = filter === undefined ? [] : [`ARGS=${filter}`];
  return run('make', ['-s', ...makefile, ...args, 'run'], { env: { ...sanitizers, ...env }, capture, mayFail: true });
}

/** The tests' binary has no part of csrc/napi: clang's opinion of that is asked without linking. */
async function compileModuleWithClang() {
  if (!(await hasProgram('clang++'))) throw new Error('clang++ is not installed');
  const headers = nodeHeaders();
  for (const source of sources('napi')) {
    await run('clang++', [...flags('napi'), '-isystem', headers, '-Icsrc', '-Icuda/include', '-fsyntax-only', source], {
      quiet: true,
    });
  }
}

/** Where node-gyp took Node's headers from, else those beside this Node. */
export function nodeHeaders() {
  return path.resolve(process.env.npm_config_nodedir ?? path.resolve(process.execPath, '../..'), 'include/node');
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const [variant, filter] = process.argv.slice(2);
    if (!Object.hasOwn(VARIANTS, variant)) throw new Error(`one of ${Object.keys(VARIANTS).join(', ')} expected`);
    return (await runNativeTests(variant, filter)).code ?? 1;
  });
}
