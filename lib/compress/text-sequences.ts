/**
 * A text as sequences of token ids, for calibration and to measure a loss.
 *
 * @module
 */
import { readFile, stat } from 'node:fs/promises';

import { refuse } from '../config/validate';
import { Engine } from '../engine';
import { loadCheckpoint } from '../engine/checkpoint';
import { InvalidArgumentError } from '../errors';
import type { Tokenizer } from '../tokenizer/tokenizer';

/** How to cut. */
export interface SequenceSettings {
  /** What the file is for, in messages. */
  readonly name: 'calibration' | 'evaluation';
  /** Null: 512, or what the model allows: one less than its length. */
  readonly sequenceLength: number | null;
  /** Tokens at most, from the beginning of the text. */
  readonly maxTokens: number;
}

const DEFAULT_LENGTH = 512;

/** The tokenizer reads so many characters at once; it refuses more than 4 Mi. */
const PART_CHARACTERS = 2 ** 20;

/** No text of so many bytes is needed, and a string has a limit of about as many characters. */
const MAX_FILE_BYTES = 2 ** 28;

/**
 * Reads a text file and cuts its tokens into sequences. Each begins with what the tokenizer puts at the beginning of a
 * text, as what the model has seen while it was trained.
 *
 * @param model - Folder of the checkpoint whose tokenizer reads the text.
 * @throws InvalidArgumentError for a file that cannot be read, or with less than two tokens, and for sequences that
 * the model is too short for.
 */
export async function readSequences(file: string, model: string, settings: SequenceSettings): Promise<Int32Array[]> {
  const { name, maxTokens } = settings;
  const text = await readTextFile(file, name);
  const { tokenizer } = await loadCheckpoint(model);
  if (!tokenizer) throw new InvalidArgumentError(`${name} needs a tokenizer.json, and the model folder has none`);
  // A token is generated to measure a loss, and needs its place.
  const longest = (await Engine.plan({ model, device: 'cpu' })).maxModelLen - 1;
  const length = settings.sequenceLength ?? Math.min(DEFAULT_LENGTH, longest);
  if (length > longest) refuse('sequenceLength', `at most ${longest} for this model`, length);
  const beginning = await tokenizer.encode('', { addSpecialTokens: true });
  if (beginning.length >= length) {
    throw new InvalidArgumentError(
      `sequenceLength must be more than ${beginning.length} for this tokenizer, received ${length}`,
    );
  }
  const ids = await encode(tokenizer, text, name, maxTokens);
  if (ids.length < 2)
    throw new InvalidArgumentError(`${name} must be a text of at least 2 tokens, received ${ids.length} in ${file}`);
  const step = length - beginning.length;
  const sequences: Int32Array[] = [];
  for (let begin = 0; begin < ids.length; begin += step) {
    const sequence = Int32Array.from([...beginning, ...ids.subarray(begin, begin + step)]);
    // A lone token has nothing to predict.
    if (sequence.length > 1) sequences.push(sequence);
  }
  return sequences;
}

async function readTextFile(file: string, name: string): Promise<string> {
  try {
    const info = await stat(file);
    if (!info.isFile()) throw new Error('it is not a regular file');
    if (info.size > MAX_FILE_BYTES) throw new Error(`it has ${info.size} bytes, more than ${MAX_FILE_BYTES}`);
    return (await readFile(file, 'utf8')).replace(/^\uFEFF/, '');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new InvalidArgumentError(`${name} must be the path of a text file, received ${file}: ${reason}`, { cause });
  }
}

/** The first `maxTokens` ids of a text, read in parts that end with a line where there is one. */
async function encode(tokenizer: Tokenizer, text: string, name: string, maxTokens: number): Promise<Int32Array> {
  const ids: number[] = [];
  for (let begin = 0; begin < text.length && ids.length < maxTokens;) {
    const end = partEnd(text, begin);
    for (const id of await tokenizer.encode(text.slice(begin, end), { addSpecialTokens: false, name })) ids.push(id);
    begin = end;
  }
  return Int32Array.from(ids.slice(0, maxTokens));
}

function partEnd(text: string, begin: number): number {
  const limit = begin + PART_CHARACTERS;
  if (limit >= text.length) return text.length;
  const line = text.lastIndexOf('\n', limit - 1) + 1;
  if (line > begin) return line;
  // Not between the halves of a character.
  const half = text.charCodeAt(limit - 1);
  return half >= 0xd800 && half < 0xdc00 ? limit - 1 : limit;
}
