/**
 * Text to token ids, through the `tokenizers` package, whose work runs off the JavaScript thread.
 *
 * @module
 */
import type { Encoding, Tokenizer as HuggingFaceTokenizer } from 'tokenizers';

import { InvalidArgumentError, ModelFormatError } from '../errors';
import { readInThread } from './content-thread';
import { Slots } from './slots';
import type { Vocabulary } from './vocabulary';

/** How to encode. */
export interface EncodeSettings {
  /** Whether the tokenizer adds its special tokens, such as a beginning-of-sequence id. */
  addSpecialTokens: boolean;
  /** What the text is, in messages. Defaults to `'text'`. */
  name?: string;
  /** More tokens than this are refused. Defaults to no limit. */
  maxTokens?: number;
  /** A text that still waits when this is aborted is not read. Defaults to none. */
  signal?: AbortSignal | undefined;
}

/**
 * Longer texts are refused. Regular expressions give up after ten million steps, which a run of spaces takes one each of,
 * and the `tokenizers` package then ends the process.
 */
const MAX_CHARACTERS = 2 ** 22;

/** Texts read at once: each occupies one of the four threads of libuv's pool, which the whole process shares. */
const MAX_AT_ONCE = 2;

/**
 * The tokenizer of a checkpoint. As in Hugging Face's libraries, a special token's name inside a text (`<|end|>`) is that
 * token; who tokenises untrusted text and minds takes such names out first.
 */
export class Tokenizer {
  readonly #tokenizer: HuggingFaceTokenizer;
  readonly #slots = new Slots(MAX_AT_ONCE);
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
    const { vocabulary, json } = await readInThread(content);
    const { Tokenizer: HuggingFaceTokenizer } = await import('tokenizers');
    try {
      return new Tokenizer(HuggingFaceTokenizer.fromString(json), vocabulary);
    } catch (cause) {
      throw new ModelFormatError(`tokenizer.json is broken: ${messageOf(cause)}`, { cause });
    }
  }

  /**
   * The most characters that `maxTokens` tokens can stand for. It takes no account of tokenizers that drop or join
   * characters, such as runs of spaces: longer texts are refused all the same, before they cost anything.
   */
  maxCharacters(maxTokens: number): number {
    return Math.min(maxTokens * this.vocabulary.longestToken + 1024, MAX_CHARACTERS);
  }

  /** @throws InvalidArgumentError for a text of more than `maxTokens` tokens, or one that the tokenizer cannot read. */
  async encode(
    text: string,
    { addSpecialTokens, name = 'text', maxTokens = Infinity, signal }: EncodeSettings,
  ): Promise<Int32Array> {
    const limit = this.maxCharacters(maxTokens);
    if (text.length > limit) {
      const purpose = limit < MAX_CHARACTERS ? ` to fit into ${maxTokens} tokens` : '';
      throw new InvalidArgumentError(
        `${name} must have at most ${limit} characters${purpose}, received ${text.length}`,
      );
    }
    const encoding = await this.#slots.run(() => this.#read(text, addSpecialTokens, name), signal);
    const numTokens = encoding.getLength();
    if (numTokens > maxTokens) {
      throw new InvalidArgumentError(`${name} must have at most ${maxTokens} tokens, received ${numTokens}`);
    }
    return Int32Array.from(encoding.getIds());
  }

  async #read(text: string, addSpecialTokens: boolean, name: string): Promise<Encoding> {
    try {
      return await this.#tokenizer.encode(text, null, { addSpecialTokens });
    } catch (cause) {
      throw new InvalidArgumentError(`${name} cannot be read by the tokenizer: ${messageOf(cause)}`, { cause });
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
