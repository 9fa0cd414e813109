/**
 * `EngineConfig`: defaults, checks, and what follows from them.
 *
 * @module
 */
import path from 'node:path';

import type { EngineConfig, FloatType, ParallelConfig } from '../../types/options';
import { ncclOptions, resolveNcclOptions, type ResolvedNcclOptions } from './nccl-options';
import {
  boolean,
  integer,
  number,
  oneOf,
  readObject,
  refuse,
  refuseForNow,
  shortText,
  type Check,
  type Checks,
} from './validate';

/** An {@link EngineConfig} with everything decided that does not need the checkpoint. */
export interface ResolvedEngineConfig {
  /** Absolute. */
  readonly model: string;
  readonly device: 'auto' | 'cpu' | 'cuda';
  /** Of each rank; empty: chosen by the native side. */
  readonly devices: Int32Array;
  readonly gpuMemoryUtilization: number;
  readonly communicator: 'auto' | 'local' | 'nccl';
  readonly nccl: ResolvedNcclOptions;
  readonly customAllReduce: boolean;
  readonly loadFormat: 'safetensors' | 'dummy';
  /** Absolute; null: nothing is kept. */
  readonly packedWeightCache: string | null;
  readonly dtype: 'auto' | FloatType;
  readonly quantization: 'auto' | 'none' | 'int8' | 'llm-int8' | 'w8a8';
  readonly sparsity: 'auto' | 'none' | '2:4';
  readonly provider: 'heddle' | 'bitsandbytes';
  readonly kvCacheDtype: 'auto' | FloatType | 'int8';
  /** 0: chosen by the engine. */
  readonly kvCacheBytes: number;
  readonly blockSize: number;
  /** 0: the checkpoint's. */
  readonly maxModelLen: number;
  /** 0: chosen by the native side, by the device. */
  readonly maxNumSeqs: number;
  /** 0: chosen by the native side, by the device. */
  readonly maxNumBatchedTokens: number;
  readonly maxNumWaiting: number;
  readonly enablePrefixCaching: boolean;
  readonly schedulingPolicy: 'fcfs' | 'priority';
  readonly seed: number;
  /** -1: no limit. */
  readonly maxLogprobs: number;
  readonly tensorParallelSize: number;
  /** 0: chosen by the native side. */
  readonly threads: number;
  readonly timeoutMs: number;
  /** `''`: the best that this machine runs. */
  readonly cpuIsa: string;
  /** Null: nobody listens. Never throws. */
  readonly onProgress: ((fraction: number) => void) | null;
}

const MAX_COUNT = 2 ** 31 - 1;
const CPU_ISAS = ['scalar', 'avx2', 'avx512', 'avx512_vnni', 'avx512_bf16', 'amx'] as const;

/** The path of a folder or file, made absolute. */
export const folderPath: Check<string> = (value, key) => {
  const folder = shortText(4096)(value, key);
  return folder.includes('\0') ? refuse(key, 'a path without NUL characters', value) : path.resolve(folder);
};

/** Called with fractions; what it throws is dropped. */
export const progressCallback: Check<(fraction: number) => void> = (value, key) => {
  if (typeof value !== 'function') refuse(key, 'a function', value);
  return (fraction) => {
    try {
      (value as (fraction: number) => void)(fraction);
    } catch {
      // A progress display that fails is no reason to stop loading.
    }
  };
};

/** A number of ranks, of which only one is possible so far. */
const oneForNow: Check<number> = (value, key) =>
  integer(1, 1024)(value, key) === 1 ? 1 : refuseForNow(`${key} above 1`);

/** Ordinals, any of them more than once: several ranks may share a device. */
const deviceList: Check<number[]> = (value, key) => {
  if (!Array.isArray(value) || value.length === 0) refuse(key, 'an array of device ordinals', value);
  return (value as unknown[]).map((item, i) => integer(0, 1023)(item, `${key}[${i}]`));
};

const parallelChecks: Checks<ParallelConfig> = {
  tensorParallelSize: oneOf([1, 2, 4, 8]),
  pipelineParallelSize: oneForNow,
  dataParallelSize: oneForNow,
  enableExpertParallel: (value, key) => (boolean(value, key) ? refuseForNow(key) : false),
  devices: deviceList,
  communicator: oneOf(['auto', 'local', 'nccl'], ['gloo']),
  customAllReduce: boolean,
  collectiveDtype: oneOf(['native'], ['int8', 'int4']),
  nccl: ncclOptions,
  timeoutMs: integer(100, 3_600_000),
};

const engineChecks: Checks<EngineConfig> = {
  model: folderPath,
  device: oneOf(['auto', 'cpu', 'cuda']),
  dtype: oneOf(['auto', 'float32', 'bfloat16', 'float16']),
  quantization: oneOf(['auto', 'none', 'int8', 'llm-int8', 'w8a8']),
  sparsity: oneOf(['auto', 'none', '2:4']),
  provider: oneOf(['heddle', 'bitsandbytes']),
  kvCacheDtype: oneOf(['auto', 'float32', 'bfloat16', 'float16', 'int8']),
  maxModelLen: integer(2, MAX_COUNT),
  schedulingPolicy: oneOf(['fcfs', 'priority']),
  seed: integer(0),
  maxLogprobs: integer(-1, MAX_COUNT),
  loadFormat: oneOf(['safetensors', 'dummy']),
  isolation: oneOf(['thread'], ['process']),
  parallel: (value) => readObject(value, 'parallel', parallelChecks, 'parallel.'),
  kvCacheBytes: integer(1),
  gpuMemoryUtilization: number(0, 1, true),
  blockSize: oneOf([16, 32, 64, 128]),
  maxNumSeqs: integer(1, 4096),
  maxNumBatchedTokens: integer(1, MAX_COUNT),
  maxNumWaiting: integer(1, MAX_COUNT),
  enablePrefixCaching: boolean,
  threads: integer(1, 256),
  packedWeightCache: folderPath,
  onProgress: progressCallback,
};

/**
 * Checks and completes an {@link EngineConfig}.
 *
 * @throws InvalidArgumentError for unknown keys, wrong values and combinations, and what does not exist yet.
 */
export function resolveEngineConfig(config: EngineConfig): ResolvedEngineConfig {
  const given = readObject(config, 'EngineConfig', engineChecks);
  const parallel = given.parallel ?? {};
  const model = given.model ?? refuse('model', 'the path of a folder', undefined);
  const tensorParallelSize = parallel.tensorParallelSize ?? 1;
  const { maxNumSeqs, maxNumBatchedTokens } = given;
  if (maxNumSeqs !== undefined && maxNumBatchedTokens !== undefined && maxNumBatchedTokens < maxNumSeqs) {
    refuse('maxNumBatchedTokens', `at least maxNumSeqs (${maxNumSeqs})`, maxNumBatchedTokens);
  }
  const device = given.device ?? 'auto';
  const devices = Int32Array.from(parallel.devices ?? []);
  if (devices.length > 0 && devices.length !== tensorParallelSize) {
    refuse('parallel.devices', `one device for each of ${tensorParallelSize} ranks`, parallel.devices);
  }
  const communicator = (parallel.communicator ?? 'auto') as 'auto' | 'local' | 'nccl';
  if (parallel.nccl !== undefined && (device === 'cpu' || communicator === 'local')) {
    const reason = device === 'cpu' ? 'on device "cpu"' : 'with communicator "local"';
    refuse('parallel.nccl', `left out ${reason}`, parallel.nccl);
  }
  const loadFormat = given.loadFormat ?? 'safetensors';
  const packedWeightCache = given.packedWeightCache ?? null;
  if (loadFormat === 'dummy' && packedWeightCache !== null) {
    refuse('packedWeightCache', 'left out with loadFormat "dummy"', packedWeightCache);
  }
  if (given.provider === 'bitsandbytes') checkBitsAndBytes(given);
  return Object.freeze({
    model,
    device,
    devices,
    gpuMemoryUtilization: given.gpuMemoryUtilization ?? 0.9,
    communicator,
    nccl: resolveNcclOptions(tensorParallelSize > 1 ? (parallel.nccl ?? {}) : {}),
    customAllReduce: parallel.customAllReduce ?? true,
    loadFormat,
    packedWeightCache,
    dtype: given.dtype ?? 'auto',
    quantization: given.quantization ?? 'auto',
    sparsity: given.sparsity ?? 'auto',
    provider: given.provider ?? 'heddle',
    kvCacheDtype: given.kvCacheDtype ?? 'auto',
    kvCacheBytes: given.kvCacheBytes ?? 0,
    blockSize: given.blockSize ?? 16,
    maxModelLen: given.maxModelLen ?? 0,
    maxNumSeqs: maxNumSeqs ?? 0,
    maxNumBatchedTokens: maxNumBatchedTokens ?? 0,
    maxNumWaiting: given.maxNumWaiting ?? 4096,
    enablePrefixCaching: given.enablePrefixCaching ?? true,
    schedulingPolicy: given.schedulingPolicy ?? 'fcfs',
    seed: given.seed ?? 0,
    maxLogprobs: given.maxLogprobs ?? 20,
    tensorParallelSize,
    threads: given.threads ?? 0,
    timeoutMs: parallel.timeoutMs ?? 60_000,
    cpuIsa: cpuIsaFromEnvironment(),
    onProgress: given.onProgress ?? null,
  });
}

/** Its functions compute dense LLM.int8 products of 16-bit activations, on GPUs. */
function checkBitsAndBytes({ device, dtype, quantization, sparsity }: Partial<EngineConfig>): void {
  const others = [
    device === 'cpu' && 'on device "cpu"',
    dtype === 'float32' && 'with dtype "float32"',
    quantization !== undefined && !['auto', 'llm-int8'].includes(quantization) && `with quantization "${quantization}"`,
    sparsity === '2:4' && 'with sparsity "2:4"',
  ];
  const where = others.find((other) => other !== false);
  if (where !== undefined) refuse('provider', `"heddle" ${where}`, 'bitsandbytes');
}

/** `HEDDLE_CPU_ISA` narrows the instruction set, to compare or to reproduce results of another machine. */
export function cpuIsaFromEnvironment(): string {
  const value = process.env['HEDDLE_CPU_ISA'];
  return value ? oneOf(CPU_ISAS)(value, 'HEDDLE_CPU_ISA') : '';
}
