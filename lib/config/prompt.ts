/**
 * `Prompt` and `ChatMessage[]`.
 *
 * @module
 */
import type { ChatMessage, Prompt } from '../../types/options';
import { InvalidArgumentError } from '../errors';
import {
  isList,
  listOf,
  readObject,
  readSafely,
  readTokenIds,
  refuse,
  shortText,
  wellFormedText,
  type Check,
  type Checks,
} from './validate';

/** What a prompt must fit into. */
export interface PromptLimits {
  /** Width of the logits; ids must be below. */
  readonly vocabSize: number;
  /** Prompt and output together; a prompt must leave room for one token. */
  readonly maxModelLen: number;
}

/** A {@link Prompt}, checked as far as possible before it is tokenised. The ids are a copy. */
export type ResolvedPrompt = { readonly text: string } | { readonly tokenIds: Int32Array };

/** @throws InvalidArgumentError */
export function resolvePrompt(prompt: Prompt, limits: PromptLimits): ResolvedPrompt {
  if (typeof prompt === 'string') return { text: wellFormedText(prompt, 'prompt') };
  if (typeof prompt !== 'object' || (prompt as unknown) === null || readSafely('prompt', () => isList(prompt))) {
    refuse('prompt', 'a string, { text } or { tokenIds }', prompt);
  }
  const tokenIds: Check<Int32Array> = (value, key) => resolvePromptIds(value, key, limits);
  const given = readObject<{ text?: string; tokenIds?: Int32Array }>(
    prompt,
    'prompt',
    { text: wellFormedText, tokenIds },
    'prompt.',
  );
  if ((given.text === undefined) === (given.tokenIds === undefined)) {
    throw new InvalidArgumentError('prompt must have either text or tokenIds');
  }
  return given.tokenIds === undefined ? { text: given.text! } : { tokenIds: given.tokenIds };
}

function resolvePromptIds(value: unknown, key: string, limits: PromptLimits): Int32Array {
  const length = lengthOf(value, key);
  checkPromptLength(length, limits.maxModelLen);
  return readSafely(key, () => readTokenIds(value as ArrayLike<unknown>, length, key, limits.vocabSize));
}

/** Ids for `decode`, copied: any number up to 2^24. @throws InvalidArgumentError */
export function resolveTokenIds(value: unknown, key: string, vocabSize: number): Int32Array {
  const length = lengthOf(value, key);
  if (length > 2 ** 24) refuse(key, 'an array of at most 2^24 token ids', value);
  return readSafely(key, () => readTokenIds(value as ArrayLike<unknown>, length, key, vocabSize));
}

/** @throws InvalidArgumentError when there is no token, or no room for another. */
export function checkPromptLength(numTokens: number, maxModelLen: number): void {
  if (numTokens === 0) throw new InvalidArgumentError('prompt must have at least 1 token, received 0');
  if (numTokens >= maxModelLen) {
    throw new InvalidArgumentError(
      `prompt must have at most ${maxModelLen - 1} tokens (maxModelLen ${maxModelLen}, less one to generate), ` +
        `received ${numTokens}`,
    );
  }
}

function lengthOf(value: unknown, key: string): number {
  if (typeof value !== 'object' || value === null) refuse(key, 'an array of token ids', value);
  const length = readSafely(key, () => (value as { length?: unknown }).length);
  const ok = typeof length === 'number' && Number.isInteger(length) && length >= 0 && length < 2 ** 31;
  return ok ? length : refuse(key, 'an array of token ids', value);
}

const messageChecks: Checks<ChatMessage> = { role: shortText(128), content: wellFormedText };

/** One to 2048 messages, copied. @throws InvalidArgumentError */
export function resolveMessages(messages: readonly ChatMessage[]): ChatMessage[] {
  return listOf(chatMessage, 1, 2048)(messages, 'messages');
}

const chatMessage: Check<ChatMessage> = (value, key) => {
  const { role, content } = readObject(value, key, messageChecks, `${key}.`);
  return {
    role: role ?? refuse(`${key}.role`, 'a string', undefined),
    content: content ?? refuse(`${key}.content`, 'a string', undefined),
  };
};
