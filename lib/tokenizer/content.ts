/**
 * The content of `tokenizer.json`, read once for all who need it.
 *
 * @module
 */
import { HeddleError, ModelFormatError } from '../errors';
import { checkTokenizerJson } from './tokenizer-json';
import { readVocabulary, type Vocabulary } from './vocabulary';

/** What there is to know of a `tokenizer.json`. */
export interface TokenizerContent {
  readonly vocabulary: Vocabulary;
  /** The checked content for the `tokenizers` package, as that reads it fastest. */
  readonly json: string;
}

/**
 * @throws ModelFormatError when the file is broken.
 * @throws UnsupportedModelError for a decoder that we do not know.
 */
export function readTokenizerContent(text: string): TokenizerContent {
  try {
    const parsed = parse(text);
    const vocabulary = readVocabulary(parsed);
    checkTokenizerJson(parsed);
    return { vocabulary, json: JSON.stringify(forPackage(parsed as Record<string, unknown>)) };
  } catch (cause) {
    if (cause instanceof HeddleError) throw cause;
    // Such as a file nested so deeply that it can be parsed, and not be written again.
    throw new ModelFormatError(`tokenizer.json cannot be read: ${messageOf(cause)}`, { cause });
  }
}

/**
 * Truncation and padding are saved for training: a prompt is neither cut nor filled up. Merges are read twice as fast as
 * strings, which is how they were written before 2024.
 */
function forPackage(tokenizer: Record<string, unknown>): Record<string, unknown> {
  const model = tokenizer['model'] as Record<string, unknown>;
  return { ...tokenizer, truncation: null, padding: null, model: { ...model, ...joinedMerges(model['merges']) } };
}

/** `{}` when a merge cannot be written as a string: a token has a space, or looks like the file's head. */
function joinedMerges(merges: unknown): { merges?: string[] } {
  if (!Array.isArray(merges)) return {};
  const joined: string[] = [];
  for (const merge of merges as unknown[]) {
    const [first, second] = Array.isArray(merge) && merge.length === 2 ? (merge as unknown[]) : [];
    if (!isWord(first) || !isWord(second) || first.startsWith('#version')) return {};
    joined.push(`${first} ${second}`);
  }
  return { merges: joined };
}

function isWord(token: unknown): token is string {
  return typeof token === 'string' && !token.includes(' ');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ModelFormatError(`tokenizer.json is not JSON: ${messageOf(cause)}`, { cause });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
