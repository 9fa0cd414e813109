/**
 * Flags that commands share, and what they mean to the library. Values pass through unchecked: the library refuses wrong
 * ones itself, in a sentence that names the key.
 *
 * @module
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

import type { Command } from 'commander';

import type { EngineConfig, ParallelConfig, SamplingParams } from '../../types/options';

/** A command line that makes no sense; exit code 2. */
export class UsageError extends Error {}

/** Folder of this package: of the repository, or of the installed package. */
export const packageRoot = path.resolve(__dirname, '../..');

/** The model that comes with the repository; an installed package has none. */
export const bundledModel = path.join(packageRoot, 'examples/models/tiny-lexicon');

/** Version of this package. */
export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  return version;
}

/** What the engine's flags give. */
export interface EngineFlags {
  model?: string;
  device?: EngineConfig['device'];
  dtype?: EngineConfig['dtype'];
  quantization?: EngineConfig['quantization'];
  sparsity?: EngineConfig['sparsity'];
  provider?: EngineConfig['provider'];
  kvCacheDtype?: EngineConfig['kvCacheDtype'];
  kvCacheBytes?: number;
  maxModelLen?: number;
  maxNumSeqs?: number;
  maxNumBatchedTokens?: number;
  loadFormat?: EngineConfig['loadFormat'];
  packedWeightCache?: EngineConfig['packedWeightCache'];
  tp?: ParallelConfig['tensorParallelSize'];
  threads?: number;
}

/** What the sampling flags give. */
export type SamplingFlags = Pick<
  SamplingParams,
  | 'maxTokens'
  | 'temperature'
  | 'topP'
  | 'topK'
  | 'minP'
  | 'presencePenalty'
  | 'frequencyPenalty'
  | 'repetitionPenalty'
  | 'seed'
  | 'ignoreEos'
> & { stop?: string[] };

/**
 * The number that a flag spells; a whole number beyond 2^53 becomes a bigint. Text that spells none is handed on as it
 * is, so that the library's message shows it.
 */
export function numeric(text: string): number {
  const plain = text.trim();
  const value = plain === '' ? NaN : Number(plain);
  if (Number.isNaN(value)) return text as unknown as number;
  if (/^\d+$/.test(plain) && !Number.isSafeInteger(value)) return BigInt(plain) as unknown as number;
  return value;
}

/** Adds the flags of {@link EngineFlags}. */
export function addEngineFlags(command: Command): Command {
  return command
    .option(
      '-m, --model <dir>',
      'folder of a checkpoint in the Hugging Face layout (default: the bundled tiny-lexicon)',
    )
    .option('--tp <n>', 'tensor-parallel ranks: 1, 2, 4 or 8', numeric)
    .option('--threads <n>', 'compute threads of each rank (default: cores ÷ ranks)', numeric)
    .option('--dtype <type>', 'weights in memory: auto, float32, bfloat16 or float16')
    .option('--quantization <scheme>', '8-bit weights: auto, none, int8, llm-int8 or w8a8')
    .option('--sparsity <pattern>', 'weights without their zeros: auto, none or 2:4')
    .option('--provider <name>', 'kernels of llm-int8 on GPUs: heddle or bitsandbytes')
    .option('--device <device>', 'auto, cpu or cuda')
    .option('--kv-cache-dtype <type>', 'KV cache: auto, float32, bfloat16, float16 or int8')
    .option('--kv-cache-bytes <n>', 'bytes of KV cache, all ranks together', numeric)
    .option('--max-model-len <n>', 'longest sequence in tokens, prompt and output together', numeric)
    .option('--max-num-seqs <n>', 'sequences in one step', numeric)
    .option('--max-num-batched-tokens <n>', 'tokens in one step', numeric)
    .option('--load-format <format>', 'safetensors, or dummy for random weights of the same shape')
    .option('--packed-weight-cache <dir>', 'keep packed weights in this folder, for faster starts')
    .option('--debug', 'show the stack of an error');
}

/** Adds the flags of {@link SamplingFlags}. */
export function addSamplingFlags(command: Command): Command {
  return command
    .option('-n, --max-tokens <n>', 'generated tokens at most', numeric)
    .option('-t, --temperature <x>', 'softmax temperature; 0 takes the most likely token', numeric)
    .option('--top-p <x>', 'keep the most likely tokens that reach this probability together', numeric)
    .option('--top-k <n>', 'keep this many most likely tokens; 0 keeps all', numeric)
    .option('--min-p <x>', "keep tokens of at least this fraction of the best one's probability", numeric)
    .option('--presence-penalty <x>', 'subtracted from the logit of every token generated before', numeric)
    .option('--frequency-penalty <x>', 'the same, times how often it was generated', numeric)
    .option('--repetition-penalty <x>', 'divides the logits of tokens seen before', numeric)
    .option('--seed <n>', 'seed of the draws: the same seed gives the same text', numeric)
    .option('--stop <text...>', 'strings that end the output')
    .option('--ignore-eos', "go on after the model's end-of-sequence token");
}

/** @throws UsageError when no model is named and none is bundled. */
export function engineConfig(flags: EngineFlags): EngineConfig {
  const {
    model,
    device,
    dtype,
    quantization,
    sparsity,
    provider,
    kvCacheDtype,
    kvCacheBytes,
    maxModelLen,
    maxNumSeqs,
    maxNumBatchedTokens,
  } = flags;
  const { loadFormat, packedWeightCache, threads, tp } = flags;
  return {
    model: model ?? defaultModel(),
    ...{
      device,
      dtype,
      quantization,
      sparsity,
      provider,
      kvCacheDtype,
      kvCacheBytes,
      maxModelLen,
      maxNumSeqs,
      maxNumBatchedTokens,
    },
    ...{ loadFormat, packedWeightCache, threads },
    ...(tp !== undefined && { parallel: { tensorParallelSize: tp } }),
  };
}

/** Sampling parameters as given; what is absent is left to the checkpoint and the library. */
export function samplingParams(flags: SamplingFlags): SamplingParams {
  const { maxTokens, temperature, topP, topK, minP, seed, stop, ignoreEos } = flags;
  const { presencePenalty, frequencyPenalty, repetitionPenalty } = flags;
  return {
    ...{ maxTokens, temperature, topP, topK, minP, seed, stop, ignoreEos },
    ...{ presencePenalty, frequencyPenalty, repetitionPenalty },
  };
}

function defaultModel(): string {
  if (existsSync(bundledModel)) return bundledModel;
  throw new UsageError(
    'no model is bundled here: pass --model DIR, the folder of a checkpoint in the Hugging Face layout',
  );
}
