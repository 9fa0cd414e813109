/**
 * The small files of a checkpoint: tokenizer, chat template, generation config. Weights and `config.json` are read by the
 * native side.
 *
 * @module
 */
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import { readGenerationConfig, type GenerationDefaults } from '../config/generation-config';
import { ModelFormatError } from '../errors';
import { ChatTemplate } from '../tokenizer/chat-template';
import { Tokenizer } from '../tokenizer/tokenizer';

/** What an engine needs of a checkpoint beside the weights. */
export interface Checkpoint {
  /** Null without `tokenizer.json`: such an engine takes and gives token ids only. */
  readonly tokenizer: Tokenizer | null;
  /** Null without one. */
  readonly chatTemplate: ChatTemplate | null;
  readonly generationDefaults: GenerationDefaults;
}

/** `tokenizer.json` of the largest vocabularies has some 35 MiB; the others have kilobytes. */
const MAX_FILE_BYTES = 256 * 2 ** 20;

/**
 * @param folder - Absolute path.
 * @throws ModelFormatError when the folder is missing or a file in it is broken.
 * @throws UnsupportedModelError for a tokenizer that we do not know.
 */
export async function loadCheckpoint(folder: string): Promise<Checkpoint> {
  await checkFolder(folder);
  const generationDefaults = await readGenerationDefaults(folder);
  const config = parse(await readText(folder, 'tokenizer_config.json'), 'tokenizer_config.json');
  const chatTemplate = ChatTemplate.find(config, await readText(folder, 'chat_template.jinja'));
  const tokenizer = await readText(folder, 'tokenizer.json');
  return {
    tokenizer: tokenizer === undefined ? null : await Tokenizer.load(tokenizer),
    chatTemplate,
    generationDefaults,
  };
}

/** `generation_config.json` alone. @throws ModelFormatError */
export async function readGenerationDefaults(folder: string): Promise<GenerationDefaults> {
  return readGenerationConfig(parse(await readText(folder, 'generation_config.json'), 'generation_config.json'));
}

async function checkFolder(folder: string): Promise<void> {
  try {
    if ((await stat(folder)).isDirectory()) return;
  } catch (cause) {
    throw new ModelFormatError(`model must be the path of a folder, received ${folder}: ${reason(cause)}`, { cause });
  }
  throw new ModelFormatError(`model must be the path of a folder, received ${folder}: it is something else`);
}

/** A file of at most 256 MiB; undefined when there is none. @throws ModelFormatError */
export async function readText(folder: string, name: string): Promise<string | undefined> {
  const file = path.join(folder, name);
  try {
    // Reading a pipe or a device might never end.
    const info = await stat(file);
    if (!info.isFile()) throw new Error('it is not a regular file');
    if (info.size > MAX_FILE_BYTES) throw new Error(`it has ${info.size} bytes, more than ${MAX_FILE_BYTES}`);
    return await readFile(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new ModelFormatError(`${name} cannot be read: ${reason(cause)}`, { cause });
  }
}

function parse(text: string | undefined, name: string): unknown {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ModelFormatError(`${name} is not JSON: ${reason(cause)}`, { cause });
  }
}

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
