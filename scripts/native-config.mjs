// What the native build compiles and with which flags: the one list behind binding.gyp, test/native/Makefile and
// clang-tidy. Paths are relative to the repository; a new source file needs no edit anywhere.
//
//   node scripts/native-config.mjs sources core|scalar|avx2|avx512|avx512_vnni|avx512_bf16|amx|napi
//   node scripts/native-config.mjs flags core|scalar|avx2|avx512|avx512_vnni|avx512_bf16|amx|napi [arch]
import { createRequire } from 'node:module';
import path from 'node:path';

import { isMain, listFiles, root } from './common.mjs';

export const SOURCE_SETS = ['core', 'scalar', 'avx2', 'avx512', 'avx512_vnni', 'avx512_bf16', 'amx', 'napi'];

const COMMON_FLAGS = [
  '-std=c++20',
  '-O3',
  '-Wall',
  '-Wextra',
  '-Wshadow',
  // g++ 12 takes `"text" + std::string()` for overlapping memory (GCC bug 105651); clang++ does not know the warning.
  '-Wno-restrict',
  '-Wno-unknown-warning-option',
  // A user's compiler may know warnings that ours does not; those must not break an installation.
  ...(root.split(path.sep).includes('node_modules') ? [] : ['-Werror']),
  '-fPIC',
  '-fvisibility=hidden',
  // Results are compared bit by bit between instruction sets: a product and a sum fuse only where the code says so.
  '-ffp-contract=off',
  '-fno-math-errno',
  '-pthread',
];

const AVX2_FLAGS = ['-mavx2', '-mfma', '-mf16c'];
const AVX512_FLAGS = ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', ...AVX2_FLAGS];
const AVX512_VNNI_FLAGS = ['-mavx512vnni', '-mavx512vbmi', '-mavx512vbmi2', ...AVX512_FLAGS];
const AVX512_BF16_FLAGS = ['-mavx512bf16', ...AVX512_VNNI_FLAGS];
const X64_FLAGS = {
  avx2: AVX2_FLAGS,
  avx512: AVX512_FLAGS,
  avx512_vnni: AVX512_VNNI_FLAGS,
  avx512_bf16: AVX512_BF16_FLAGS,
  amx: [...AVX512_BF16_FLAGS, '-mamx-tile', '-mamx-bf16', '-mamx-int8'],
};

/** The set that a source belongs to. */
export function sourceSet(file) {
  if (file.startsWith('csrc/napi/')) return 'napi';
  return /^csrc\/ops\/cpu\/kernels_(\w+)\.cc$/.exec(file)?.[1] ?? 'core';
}

export function sources(set) {
  return listFiles('csrc').filter((file) => file.endsWith('.cc') && sourceSet(file) === set);
}

/** Compiler flags of a set, without include paths of Node itself. */
export function flags(set, arch = process.arch) {
  const isa = arch === 'x64' ? (X64_FLAGS[set] ?? []) : [];
  return [...COMMON_FLAGS, ...isa, ...(set === 'napi' ? napiFlags() : [])];
}

function napiFlags() {
  const headers = path.dirname(createRequire(import.meta.url).resolve('node-addon-api/package.json'));
  // System headers: their warnings are not ours.
  return ['-DNAPI_VERSION=9', '-DNAPI_CPP_EXCEPTIONS', '-isystem', headers];
}

if (isMain(import.meta.url)) {
  const [what, set, arch] = process.argv.slice(2);
  const lists = { sources, flags };
  if (!lists[what] || !SOURCE_SETS.includes(set)) throw new Error(`unknown list: ${what} ${set}`);
  console.log(lists[what](set, arch).join('\n'));
}
