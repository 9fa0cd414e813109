/**
 * `SamplingParams`: defaults, checks, and vLLM's reading of them (`vllm/sampling_params.py`).
 *
 * @module
 */
import { types } from 'node:util';

import type { RepetitionDetection, SamplingParams } from '../../types/options';
import { InvalidArgumentError } from '../errors';
import type { GenerationDefaults } from './generation-config';
import {
  boolean,
  checkTokenIds,
  integer,
  listOf,
  notYet,
  number,
  oneOf,
  readObject,
  readSafely,
  refuse,
  shortText,
  tokenId,
  tokenIdList,
  type Check,
  type Checks,
  type Complete,
} from './validate';

/** {@link SamplingParams} with everything decided that does not need the prompt or the tokenizer. */
export interface ResolvedSamplingParams {
  readonly n: number;
  /** 0: greedy, and then `topP`, `topK` and `minP` are off. */
  readonly temperature: number;
  readonly topP: number;
  /** 0: all. */
  readonly topK: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  /** Null: derived from the engine's. */
  readonly seed: bigint | null;
  /** Null: as many as fit. */
  readonly maxTokens: number | null;
  readonly minTokens: number;
  readonly ignoreEos: boolean;
  readonly stop: string[];
  readonly stopTokenIds: Int32Array;
  readonly includeStopStrInOutput: boolean;
  /** -1: none. The vocabulary's size for all. */
  readonly logprobs: number;
  readonly promptLogprobs: number;
  readonly logitBiasIds: Int32Array;
  readonly logitBiasValues: Float32Array;
  /** Empty: all. */
  readonly allowedTokenIds: Int32Array;
  readonly badWords: string[];
  /** `maxPatternSize` 0: off. */
  readonly repetitionDetection: Complete<RepetitionDetection>;
  readonly detokenize: boolean;
  readonly skipSpecialTokens: boolean;
  readonly outputKind: 'delta' | 'cumulative' | 'final_only';
  readonly streamInterval: number;
  readonly skipReadingPrefixCache: boolean;
}

/** What an engine knows when it reads {@link SamplingParams}. */
export interface SamplingContext {
  /** Width of the logits. */
  readonly vocabSize: number;
  /** The engine's limit of `logprobs` and `promptLogprobs`; -1: none. */
  readonly maxLogprobs: number;
  readonly defaults: GenerationDefaults;
  /** Whether the engine has a tokenizer. */
  readonly hasTokenizer: boolean;
}

const MAX_TOKEN_LIST = 1024;
/** Four times the largest vocabulary there is. */
const MAX_ALLOWED_IDS = 2 ** 20;
/** Lower temperatures overflow the logits; vLLM raises them, too. */
const MIN_TEMPERATURE = 0.01;

const seed: Check<number | bigint> = (value, key) => {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  if (typeof value === 'bigint' && value >= 0n && value < 2n ** 64n) return value;
  refuse(key, 'an integer from 0 to 2^53 - 1, or a bigint below 2^64', value);
};

const stopString = shortText(256);
const stopStringList = listOf(stopString, 0, 16, 'a string or an array of strings');
const stopStrings: Check<string[]> = (value, key) =>
  typeof value === 'string' ? [stopString(value, key)] : stopStringList(value, key);

const bias = number(-100, 100);

const logitBias: Check<Map<number, number>> = (value, key) => {
  if (typeof value !== 'object' || value === null) refuse(key, 'an object or Map from token id to number', value);
  const entries: [unknown, unknown][] = readSafely(key, () =>
    types.isMap(value) ? [...value] : Object.entries(value).map(([id, b]) => [idOf(id), b]),
  );
  if (entries.length > MAX_TOKEN_LIST) refuse(key, `an object of at most ${MAX_TOKEN_LIST} entries`, value);
  return new Map(entries.map(([id, b]) => [tokenId(id, `a key of ${key}`), bias(b, `${key}[${String(id)}]`)]));
};

/** The number that an object's key spells, or the key itself when it spells none. */
function idOf(key: string): number | string {
  return /^(0|[1-9][0-9]{0,9})$/.test(key) ? Number(key) : key;
}

const badWord: Check<string> = (value, key) => {
  const word = shortText(256)(value, key);
  return word.trim() === '' ? refuse(key, 'a word that is not blank', value) : word;
};

const repetitionChecks: Checks<RepetitionDetection> = {
  maxPatternSize: integer(1, 256),
  minPatternSize: integer(1, 256),
  minCount: integer(2, 256),
};

const repetitionDetection: Check<Complete<RepetitionDetection>> = (value, key) => {
  const given = readObject(value, key, repetitionChecks, `${key}.`);
  const maxPatternSize = given.maxPatternSize ?? refuse(`${key}.maxPatternSize`, 'given', undefined);
  const minCount = given.minCount ?? refuse(`${key}.minCount`, 'given', undefined);
  const minPatternSize = given.minPatternSize ?? 1;
  if (minPatternSize > maxPatternSize) {
    refuse(`${key}.minPatternSize`, `at most maxPatternSize (${maxPatternSize})`, minPatternSize);
  }
  return { maxPatternSize, minPatternSize, minCount };
};

/** {@link SamplingParams} as the checks leave them. */
interface CheckedParams extends Omit<SamplingParams, keyof Interpreted>, Interpreted {}

interface Interpreted {
  stop?: string[];
  stopTokenIds?: Int32Array;
  logitBias?: Map<number, number>;
  allowedTokenIds?: Int32Array;
  repetitionDetection?: Complete<RepetitionDetection>;
}

const checks: Checks<CheckedParams> = {
  n: integer(1, 16),
  temperature: number(0, 100),
  topP: number(0, 1, true),
  topK: integer(-1),
  minP: number(0, 1),
  presencePenalty: number(-2, 2),
  frequencyPenalty: number(-2, 2),
  repetitionPenalty: number(0, 10, true),
  seed,
  maxTokens: integer(1),
  minTokens: integer(0),
  ignoreEos: boolean,
  stop: stopStrings,
  stopTokenIds: tokenIdList(0, MAX_TOKEN_LIST),
  includeStopStrInOutput: boolean,
  logprobs: integer(-1),
  promptLogprobs: integer(-1),
  logitBias,
  allowedTokenIds: tokenIdList(1, MAX_ALLOWED_IDS),
  badWords: listOf(badWord, 0, 256),
  repetitionDetection,
  reasoningBudget: notYet,
  detokenize: boolean,
  skipSpecialTokens: boolean,
  spacesBetweenSpecialTokens: boolean,
  outputKind: oneOf(['delta', 'cumulative', 'final_only']),
  streamInterval: integer(1, 1024),
  prefixCache: oneOf(['use', 'skip']),
};

/**
 * Checks and completes {@link SamplingParams}.
 *
 * @throws InvalidArgumentError for unknown keys, wrong values and combinations, and ids beyond the vocabulary.
 */
export function resolveSamplingParams(params: SamplingParams, context: SamplingContext): ResolvedSamplingParams {
  const given = readObject(params, 'SamplingParams', checks);
  const maxTokens = given.maxTokens ?? context.defaults.maxTokens ?? null;
  checkCombinations(given, maxTokens ?? Infinity, context);
  const { vocabSize } = context;
  const biases = given.logitBias ?? new Map<number, number>();
  return Object.freeze({
    n: given.n ?? 1,
    ...filters(given, context),
    presencePenalty: given.presencePenalty ?? 0,
    frequencyPenalty: given.frequencyPenalty ?? 0,
    repetitionPenalty: given.repetitionPenalty ?? context.defaults.repetitionPenalty ?? 1,
    seed: given.seed === undefined ? null : BigInt(given.seed),
    maxTokens,
    minTokens: given.minTokens ?? 0,
    ignoreEos: given.ignoreEos ?? false,
    stop: given.stop ?? [],
    stopTokenIds: idsBelow(vocabSize, given.stopTokenIds, 'stopTokenIds'),
    includeStopStrInOutput: given.includeStopStrInOutput ?? false,
    logprobs: logprobCount(given.logprobs, 'logprobs', context),
    promptLogprobs: logprobCount(given.promptLogprobs, 'promptLogprobs', context),
    logitBiasIds: idsBelow(vocabSize, Int32Array.from(biases.keys()), 'keys of logitBias'),
    logitBiasValues: Float32Array.from(biases.values()),
    allowedTokenIds: idsBelow(vocabSize, given.allowedTokenIds, 'allowedTokenIds'),
    badWords: given.badWords ?? [],
    repetitionDetection: given.repetitionDetection ?? { maxPatternSize: 0, minPatternSize: 0, minCount: 0 },
    detokenize: given.detokenize ?? true,
    skipSpecialTokens: given.skipSpecialTokens ?? true,
    outputKind: given.outputKind ?? 'delta',
    streamInterval: given.streamInterval ?? 1,
    // A prefix hit skips the very logits that promptLogprobs asks for.
    skipReadingPrefixCache: given.prefixCache === 'skip' || given.promptLogprobs !== undefined,
  });
}

function checkCombinations(given: CheckedParams, maxTokens: number, { hasTokenizer }: SamplingContext): void {
  const { minTokens = 0, detokenize = true, stop = [], badWords = [] } = given;
  if (minTokens > maxTokens) refuse('minTokens', `at most maxTokens (${maxTokens})`, minTokens);
  if (stop.length > 0 && !detokenize) {
    throw new InvalidArgumentError('stop must be absent when detokenize is false: stop strings are found in text');
  }
  if (stop.length + badWords.length > 0 && !hasTokenizer) {
    const key = stop.length > 0 ? 'stop' : 'badWords';
    throw new InvalidArgumentError(`${key} must be absent: the model folder has no tokenizer.json`);
  }
}

/** Temperature and what cuts the distribution, as vLLM reads them: greedy knows no filters. */
function filters(
  given: CheckedParams,
  { defaults, vocabSize }: SamplingContext,
): Pick<ResolvedSamplingParams, 'temperature' | 'topP' | 'topK' | 'minP'> {
  const temperature = given.temperature ?? defaults.temperature ?? 1;
  if (temperature === 0) return { temperature: 0, topP: 1, topK: 0, minP: 0 };
  const topK = given.topK ?? defaults.topK ?? 0;
  return {
    temperature: Math.max(temperature, MIN_TEMPERATURE),
    topP: given.topP ?? defaults.topP ?? 1,
    topK: topK > 0 && topK < vocabSize ? topK : 0,
    minP: given.minP ?? defaults.minP ?? 0,
  };
}

function logprobCount(
  given: number | undefined,
  key: string,
  { vocabSize, maxLogprobs }: SamplingContext,
): ResolvedSamplingParams['logprobs'] {
  if (given === undefined) return -1;
  const count = given === -1 ? vocabSize : given;
  if (maxLogprobs !== -1 && count > maxLogprobs) {
    refuse(key, `an integer from 0 to ${maxLogprobs} (the engine's maxLogprobs)`, given);
  }
  return Math.min(count, vocabSize);
}

function idsBelow(vocabSize: number, ids: Int32Array | undefined, key: string): Int32Array {
  if (!ids) return new Int32Array(0);
  checkTokenIds(ids, key, vocabSize);
  return ids;
}
