/**
 * `generation_config.json`: the checkpoint's own sampling defaults, as vLLM takes them (`--generation-config auto`).
 *
 * @module
 */
import { InvalidArgumentError, ModelFormatError } from '../errors';
import { integer, listOf, number, readObject, tokenId, type Check, type Checks } from './validate';

/** What a checkpoint wants sampled when the caller does not say. Keys that are absent have vLLM's defaults. */
export interface GenerationDefaults {
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  /** Capped by the room left, like a caller's. */
  readonly maxTokens?: number;
  /** Ends of sequence beside those of `config.json`; may be empty. */
  readonly eosTokenIds: Int32Array;
}

interface GenerationConfigFile {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  max_new_tokens?: number;
  eos_token_id?: number[];
}

const eosTokenIds: Check<number[]> = (value, key) =>
  Array.isArray(value) ? listOf(tokenId, 0, 1024)(value, key) : [tokenId(value, key)];

const checks: Checks<GenerationConfigFile> = {
  temperature: number(0, 100),
  top_p: number(0, 1, true),
  top_k: integer(-1),
  min_p: number(0, 1),
  repetition_penalty: number(0, 10, true),
  max_new_tokens: integer(1),
  eos_token_id: eosTokenIds,
};

/**
 * Reads the parsed content of `generation_config.json`; `undefined` when there is none. Keys that are null, and keys of no
 * concern to us, are passed over; `do_sample` too, as in vLLM: only `temperature` decides whether to sample.
 *
 * @throws ModelFormatError for a value out of range.
 */
export function readGenerationConfig(content: unknown): GenerationDefaults {
  const file = readFile(content ?? {});
  return Object.freeze({
    ...(file.temperature !== undefined && { temperature: file.temperature }),
    ...(file.top_p !== undefined && { topP: file.top_p }),
    ...(file.top_k !== undefined && { topK: file.top_k }),
    ...(file.min_p !== undefined && { minP: file.min_p }),
    ...(file.repetition_penalty !== undefined && { repetitionPenalty: file.repetition_penalty }),
    ...(file.max_new_tokens !== undefined && { maxTokens: file.max_new_tokens }),
    eosTokenIds: Int32Array.from(file.eos_token_id ?? []),
  });
}

function readFile(content: unknown): GenerationConfigFile {
  try {
    if (typeof content !== 'object' || content === null || Array.isArray(content)) {
      throw new InvalidArgumentError('it must be an object');
    }
    const ours = Object.entries(content).filter(([key, value]) => Object.hasOwn(checks, key) && value !== null);
    return readObject(Object.fromEntries(ours), 'it', checks);
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    throw new ModelFormatError(`generation_config.json is broken: ${error.message}`);
  }
}
