/**
 * The thread of {@link readInThread}: reads one `tokenizer.json` and ends.
 *
 * @module
 */
import { parentPort, workerData } from 'node:worker_threads';

import { HeddleError } from '../errors';
import { readTokenizerContent, type TokenizerContent } from './content';

/** What the thread answers: the content, or why there is none. */
export type Answer = TokenizerContent | { readonly code: string; readonly message: string };

try {
  const content = readTokenizerContent(workerData as string);
  const { bytes, offsets, special } = content.vocabulary;
  const buffers = [bytes, offsets, special].map(({ buffer }) => buffer as ArrayBuffer);
  parentPort?.postMessage(content satisfies Answer, buffers);
} catch (error) {
  // Anything else ends the thread with an error of its own.
  if (!(error instanceof HeddleError)) throw error;
  parentPort?.postMessage({ code: error.code, message: error.message } satisfies Answer);
}
