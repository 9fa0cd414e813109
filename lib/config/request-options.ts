/**
 * What stands beside prompt and sampling parameters in a call: options of requests, of text, and of `close()`.
 *
 * @module
 */
import type { ChatOptions, CloseOptions, DecodeOptions, EncodeOptions, RequestOptions } from '../../types/options';
import { InvalidArgumentError } from '../errors';
import { boolean, integer, label, readObject, refuse, type Check, type Checks, type Complete } from './validate';

/** {@link RequestOptions}, complete. */
export interface ResolvedRequestOptions {
  readonly signal: AbortSignal | null;
  readonly priority: number;
  /** `''`: none. */
  readonly cacheSalt: string;
  /** Null: the engine makes one. */
  readonly requestId: string | null;
}

/** {@link ChatOptions}, complete. */
export interface ResolvedChatOptions extends ResolvedRequestOptions {
  readonly addGenerationPrompt: boolean;
  readonly continueFinalMessage: boolean;
}

/** By shape, not by class: signals come from other realms and from polyfills too. */
export const abortSignal: Check<AbortSignal> = (value, key) => {
  const signal = value as Partial<AbortSignal> | null;
  const ok =
    typeof signal === 'object' &&
    signal !== null &&
    typeof signal.aborted === 'boolean' &&
    typeof signal.addEventListener === 'function' &&
    typeof signal.removeEventListener === 'function';
  return ok ? (value as AbortSignal) : refuse(key, 'an AbortSignal', value);
};

const requestChecks: Checks<RequestOptions> = {
  signal: abortSignal,
  priority: integer(-(2 ** 31), 2 ** 31 - 1),
  cacheSalt: label,
  requestId: label,
};

const chatChecks: Checks<ChatOptions> = {
  ...requestChecks,
  addGenerationPrompt: boolean,
  continueFinalMessage: boolean,
};

const encodeChecks: Checks<EncodeOptions> = { addSpecialTokens: boolean };
const decodeChecks: Checks<DecodeOptions> = { skipSpecialTokens: boolean };
const closeChecks: Checks<CloseOptions> = { drain: boolean, timeoutMs: integer(0, 2 ** 31 - 1) };

/** @throws InvalidArgumentError */
export function resolveRequestOptions(
  options: RequestOptions,
  schedulingPolicy: 'fcfs' | 'priority',
): ResolvedRequestOptions {
  return Object.freeze(completeRequest(readObject(options, 'RequestOptions', requestChecks), schedulingPolicy));
}

/** @throws InvalidArgumentError */
export function resolveChatOptions(options: ChatOptions, schedulingPolicy: 'fcfs' | 'priority'): ResolvedChatOptions {
  const given = readObject(options, 'ChatOptions', chatChecks);
  const continueFinalMessage = given.continueFinalMessage ?? false;
  const addGenerationPrompt = given.addGenerationPrompt ?? !continueFinalMessage;
  if (continueFinalMessage && addGenerationPrompt) {
    throw new InvalidArgumentError(
      'addGenerationPrompt must be false when continueFinalMessage is true, received true',
    );
  }
  return Object.freeze({ ...completeRequest(given, schedulingPolicy), addGenerationPrompt, continueFinalMessage });
}

function completeRequest(given: RequestOptions, schedulingPolicy: 'fcfs' | 'priority'): ResolvedRequestOptions {
  const { signal = null, priority = 0, cacheSalt = '', requestId = null } = given;
  if (priority !== 0 && schedulingPolicy === 'fcfs') refuse('priority', "0 under schedulingPolicy 'fcfs'", priority);
  return { signal, priority, cacheSalt, requestId };
}

/** @throws InvalidArgumentError */
export function resolveEncodeOptions(options: EncodeOptions): Complete<EncodeOptions> {
  return { addSpecialTokens: true, ...readObject(options, 'EncodeOptions', encodeChecks) };
}

/** @throws InvalidArgumentError */
export function resolveDecodeOptions(options: DecodeOptions): Complete<DecodeOptions> {
  return { skipSpecialTokens: true, ...readObject(options, 'DecodeOptions', decodeChecks) };
}

/** `timeoutMs` null: no limit. @throws InvalidArgumentError */
export function resolveCloseOptions(options: CloseOptions): { drain: boolean; timeoutMs: number | null } {
  return { drain: false, timeoutMs: null, ...readObject(options, 'CloseOptions', closeChecks) };
}
