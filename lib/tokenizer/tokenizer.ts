/**
 * Text to token ids, through the `tokenizers` package, whose work runs off the JavaScript thread.
 *
 * @module
 */
import type { Tokenizer as HuggingFaceTokenizer } from 'tokenizers';

import { InvalidArgumentError, ModelFormatError } from '../errors';
import { readVocabulary, type Vocabulary } from './vocabulary';

/** How to encode. */
export interface EncodeSettings {
  /** Whether the tokenizer adds its special tokens, such as a beginning-of-sequence id. */
  addSpecialTokens: boolean;
  /** What the text is, in messages. Defaults to `'text'`. */
  name?: string;
  /** More tokens than this are refused. Defaults to no limit. */
  maxTokens?: number;
}

/** Texts longer than this take turns: each occupies a thread of libuv's pool, which the whole process shares. */
const LONG_TEXT = 2 ** 16;

/**
 * The tokenizer of a checkpoint. As in Hugging Face's libraries, a special token's name inside a text (`<|end|>`) is that
 * token; who tokenises untrusted text and minds takes such names out first.
 */
export class Tokenizer {
  readonly #tokenizer: HuggingFaceTokenizer;
  #lastLong: Promise<unknown> = Promise.resolve();
  readonly vocabulary: Vocabulary;

  private constructor(tokenizer: HuggingFaceTokenizer, vocabulary: Vocabulary) {
    this.#tokenizer = tokenizer;
    this.vocabulary = vocabulary;
  }

  /**
   * Reads the content of `tokenizer.json`.
   *
   * @throws ModelFormatError when it is broken.
   * @throws UnsupportedModelError for a decoder that we do not know.
   */
  static async load(content: string): Promise<Tokenizer> {
    const vocabulary = readVocabulary(parse(content));
    const { Tokenizer: HuggingFaceTokenizer } = await import('tokenizers');
    try {
      const tokenizer = HuggingFaceTokenizer.fromString(content);
      // Saved for training; a prompt is neither cut nor filled up.
      tokenizer.disableTruncation();
      tokenizer.disablePadding();
      return new Tokenizer(tokenizer, vocabulary);
    } catch (cause) {
      throw new ModelFormatError(`tokenizer.json is broken: ${messageOf(cause)}`, { cause });
    }
  }

  /**
   * The most characters that `maxTokens` tokens can stand for. It takes no account of tokenizers that drop or join
   * characters, such as runs of spaces: longer texts are refused all the same, before they cost anything.
   */
  maxCharacters(maxTokens: number): number {
    return maxTokens * this.vocabulary.longestToken + 1024;
  }

  /** @throws InvalidArgumentError when the text has more than `maxTokens` tokens. */
  async encode(
    text: string,
    { addSpecialTokens, name = 'text', maxTokens = Infinity }: EncodeSettings,
  ): Promise<Int32Array> {
    const limit = this.maxCharacters(maxTokens);
    if (text.length > limit) {
      throw new InvalidArgumentError(
        `${name} must have at most ${limit} characters to fit into ${maxTokens} tokens, received ${text.length}`,
      );
    }
    const encode = () => this.#tokenizer.encode(text, null, { addSpecialTokens });
    const encoding = await (text.length > LONG_TEXT ? this.#inTurn(encode) : encode());
    const numTokens = encoding.getLength();
    if (numTokens > maxTokens) {
      throw new InvalidArgumentError(`${name} must have at most ${maxTokens} tokens, received ${numTokens}`);
    }
    return Int32Array.from(encoding.getIds());
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#lastLong.then(work);
    this.#lastLong = result.catch(() => undefined);
    return result;
  }
}

function parse(content: string): unknown {
  try {
    return JSON.parse(content);
  } catch (cause) {
    throw new ModelFormatError(`tokenizer.json is not JSON: ${messageOf(cause)}`, { cause });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
