/**
 * Reading a large `tokenizer.json` off the JavaScript thread.
 *
 * @module
 */
import path from 'node:path';
import { Worker } from 'node:worker_threads';

import { ModelFormatError, UnsupportedModelError } from '../errors';
import { readTokenizerContent, type TokenizerContent } from './content';
import type { Answer } from './content-worker';

/** Starting a thread takes longer than reading fewer characters than these. */
const LARGE = 2 ** 20;

const WORKER = require.resolve('./content-worker');

/** As {@link readTokenizerContent}; large files are read in a thread of their own. */
export async function readInThread(text: string): Promise<TokenizerContent> {
  // Sources that nobody has compiled, as in tests, are nothing that a thread could start from.
  if (text.length < LARGE || path.extname(WORKER) !== '.js') return readTokenizerContent(text);
  // Nothing of the host program's: neither its environment nor its loaders.
  const answer = await answerOf(() => new Worker(WORKER, { workerData: text, env: {}, execArgv: [] }));
  if ('vocabulary' in answer) return answer;
  throw answer.code === 'ERR_UNSUPPORTED_MODEL'
    ? new UnsupportedModelError(answer.message)
    : new ModelFormatError(answer.message);
}

/**
 * What a thread says first. One that runs out of memory fails alone.
 *
 * @throws ModelFormatError when it says nothing: it cannot start, fails, or ends.
 */
export async function answerOf(start: () => Worker): Promise<Answer> {
  try {
    const worker = start();
    return await new Promise<Answer>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('messageerror', reject);
      worker.once('error', reject);
      worker.once('exit', (code) => reject(new Error(`its thread ended early, with code ${code}`)));
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ModelFormatError(`tokenizer.json cannot be read: ${reason}`, { cause });
  }
}
