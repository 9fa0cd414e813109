/**
 * One request, watched as its caller sees it.
 *
 * @module
 */
import type { SamplingParams } from '../../types/options';
import type { Engine } from '../index';

/** What measuring needs of an engine. */
export type MeasuredEngine = Pick<Engine, 'generate' | 'stats'>;

/** What is asked for. Exactly `maxTokens` tokens come, whatever the model says. */
export interface Work {
  readonly prompt: number[];
  readonly maxTokens: number;
}

/** Milliseconds of `performance.now()`. */
export interface RequestTimes {
  /** When `generate()` was called. */
  readonly start: number;
  /** When each token came. Tokens that came together share the time since the one before evenly. */
  readonly tokens: readonly number[];
}

/** Runs a request to its end; `onFirstToken` is called when its first token is there. */
export async function timeRequest(
  engine: MeasuredEngine,
  { prompt, maxTokens }: Work,
  onFirstToken?: () => void,
): Promise<RequestTimes> {
  const params: SamplingParams = { temperature: 0, maxTokens, ignoreEos: true, detokenize: false };
  const tokens: number[] = [];
  const start = performance.now();
  for await (const { tokenIds } of engine.generate({ tokenIds: prompt }, params)) {
    const now = performance.now();
    if (tokens.length === 0) onFirstToken?.();
    const last = tokens.at(-1) ?? now;
    for (let i = 1; i <= tokenIds.length; ++i) tokens.push(last + ((now - last) * i) / tokenIds.length);
  }
  return { start, tokens };
}

/** Milliseconds to the first token. */
export function timeToFirstToken({ start, tokens }: RequestTimes): number {
  return (tokens[0] ?? NaN) - start;
}

/** Milliseconds between each token and the next, of those that came at `from` or later. */
export function timesPerOutputToken({ tokens }: RequestTimes, from = -Infinity): number[] {
  const late = tokens.filter((time) => time >= from);
  return late.slice(1).map((time, i) => time - late[i]!);
}

/** Ids that no two prompts share a prefix of; any vocabulary of 4000 has them. */
export function syntheticPrompt(length: number, salt: number): number[] {
  return Array.from({ length }, (_, i) => 100 + ((i * 7919 + salt * 31) % 3900));
}
