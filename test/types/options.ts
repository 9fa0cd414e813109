/**
 * What callers may write under `exactOptionalPropertyTypes`: a value that may be undefined, for every optional key. Compiled
 * by `npm run typecheck`, never run.
 */
import type {
  ChatOptions,
  CloseOptions,
  DecodeOptions,
  EncodeOptions,
  EngineConfig,
  NcclOptions,
  ParallelConfig,
  PruneOptions,
  QuantizeOptions,
  RepetitionDetection,
  RequestOptions,
  SamplingParams,
} from 'heddle';

/** The keys of T that may be absent, but not undefined. */
type Strict<T> = {
  [K in keyof T]-?: object extends Pick<T, K> ? (Record<K, undefined> extends Pick<T, K> ? never : K) : never;
}[keyof T];

type NoneIn<T> = [Strict<T>] extends [never] ? true : Strict<T>;

export const undefinedCountsAsAbsent: {
  chat: NoneIn<ChatOptions>;
  close: NoneIn<CloseOptions>;
  decode: NoneIn<DecodeOptions>;
  encode: NoneIn<EncodeOptions>;
  engine: NoneIn<EngineConfig>;
  nccl: NoneIn<NcclOptions>;
  parallel: NoneIn<ParallelConfig>;
  prune: NoneIn<PruneOptions>;
  quantize: NoneIn<QuantizeOptions>;
  repetition: NoneIn<RepetitionDetection>;
  request: NoneIn<RequestOptions>;
  sampling: NoneIn<SamplingParams>;
} = {
  chat: true,
  close: true,
  decode: true,
  encode: true,
  engine: true,
  nccl: true,
  parallel: true,
  prune: true,
  quantize: true,
  repetition: true,
  request: true,
  sampling: true,
};

declare const temperature: number | undefined;
export const params: SamplingParams = { temperature };

// @ts-expect-error -- what is not optional stays so
export const detection: RepetitionDetection = { minCount: undefined, maxPatternSize: 2 };
