// Builds the GPU backend, build/cuda/libheddle_cuda.so, unless it is up to date. Needs nvcc of CUDA 13 and cmake.
//
//   node scripts/build-cuda.mjs [--cublas-include DIR] [--nccl-include DIR] [--bitsandbytes DIR] [--arch LIST] [--bench]
//     [--force]
//
// Folders of the headers of cuBLASLt and NCCL that are not given are looked for in the CUDA toolkit and the system, then
// in build/cuda/headers (`npm run cuda:headers`). LIST is one of cmake's, such as "90a-real"; --bench also builds the
// programs of cuda/bench, --bitsandbytes the library of bitsandbytes from its sources.
import { existsSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import {
  announce,
  fingerprint,
  hasProgram,
  isMain,
  isUpToDate,
  listFiles,
  main,
  root,
  run,
  writeStamp,
} from './common.mjs';

const LIBRARY = 'build/cuda/libheddle_cuda.so';
const STAMP = 'build/cuda/.stamp';
const FOLDER = 'build/cuda/cmake';
const INPUTS = ['cuda', 'scripts/build-cuda.mjs'];
const COMMON_NVCC = '/usr/local/cuda/bin/nvcc';

export async function buildCuda({ cublasInclude, ncclInclude, bitsandbytes, arch, bench = false, force = false } = {}) {
  const nvcc = await findNvcc();
  const variables = {
    HEDDLE_CUBLAS_INCLUDE: folderWith(cublasInclude, 'cublasLt.h'),
    HEDDLE_NCCL_INCLUDE: folderWith(ncclInclude, 'nccl.h'),
    HEDDLE_BITSANDBYTES: folderWith(bitsandbytes, 'csrc/pythonInterface.cpp'),
    HEDDLE_CUDA_ARCHITECTURES: arch,
    HEDDLE_CUDA_BENCH: bench ? 'ON' : 'OFF',
  };
  const print = fingerprint(listFiles(...INPUTS), process.platform, process.arch, variables, nvcc, process.env.CXX);
  if (!force && existsSync(path.join(root, LIBRARY)) && isUpToDate(STAMP, print)) return;
  await announce('building the CUDA library (some minutes the first time)', async () => {
    const env = { CUDACXX: nvcc };
    await run('cmake', ['-S', 'cuda', '-B', FOLDER, ...definitions(variables)], { env, quiet: true });
    await run('cmake', ['--build', FOLDER, `--parallel=${jobs()}`], { quiet: true });
  });
  writeStamp(STAMP, print);
}

/** The compiler that CUDACXX names, else that of the PATH or of the toolkit's usual place. */
async function findNvcc() {
  if (!(await hasProgram('cmake'))) throw new Error('the CUDA build needs cmake 3.25 or later, which was not found');
  const candidates = process.env.CUDACXX ? [process.env.CUDACXX] : ['nvcc', COMMON_NVCC];
  for (const candidate of candidates) if (await hasProgram(candidate)) return candidate;
  throw new Error(
    `the CUDA build needs nvcc of the CUDA toolkit, not found as ${candidates.join(' or ')}; CUDACXX can name it`,
  );
}

function folderWith(folder, file) {
  if (folder === undefined) return undefined;
  const absolute = path.resolve(folder);
  if (!existsSync(path.join(absolute, file))) throw new Error(`${absolute} has no ${file}`);
  return absolute;
}

/** What has no value is left to cmake, whatever an earlier run was told. */
function definitions(variables) {
  return Object.entries(variables).map(([name, value]) => (value === undefined ? `-U${name}` : `-D${name}=${value}`));
}

/** Every job compiles for two architectures at once, and needs memory for it. */
function jobs() {
  return Math.max(1, Math.min(Math.ceil(os.availableParallelism() / 2), Math.floor(os.totalmem() / 4e9)));
}

if (isMain(import.meta.url)) {
  await main(() => {
    const { values } = parseArgs({
      options: {
        'cublas-include': { type: 'string' },
        'nccl-include': { type: 'string' },
        bitsandbytes: { type: 'string' },
        arch: { type: 'string' },
        bench: { type: 'boolean' },
        force: { type: 'boolean' },
      },
    });
    const { 'cublas-include': cublasInclude, 'nccl-include': ncclInclude, ...others } = values;
    return buildCuda({ cublasInclude, ncclInclude, ...others });
  });
}
