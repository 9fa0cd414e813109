import { EventEmitter } from 'node:events';
import { Worker } from 'node:worker_threads';

import { answerOf } from '../../lib/tokenizer/content-thread';

const thread = (source: string) => () => new Worker(source, { eval: true });
const refused = (reason: string) => ({
  code: 'ERR_MODEL_FORMAT',
  message: expect.stringMatching(new RegExp(`^tokenizer.json cannot be read: .*${reason}`)) as string,
});

describe('the answer of a thread', () => {
  it('is the first thing that it says, and its end afterwards changes nothing', async () => {
    const source = "require('node:worker_threads').parentPort.postMessage({ code: 'x', message: 'y' })";
    expect(await answerOf(thread(source))).toEqual({ code: 'x', message: 'y' });
  });

  it.each([
    ['ends without a word', thread('process.exit(3)'), 'its thread ended early, with code 3'],
    ['throws', thread("throw new Error('broken')"), 'broken'],
    [
      'cannot be started',
      () => {
        throw new Error('no threads left');
      },
      'no threads left',
    ],
  ])('is a typed error when it %s', async (_, start, reason) => {
    await expect(answerOf(start)).rejects.toMatchObject(refused(reason));
  });

  it('is a typed error when it cannot be understood', async () => {
    const worker = new EventEmitter() as unknown as Worker;
    setImmediate(() => worker.emit('messageerror', new Error('garbled')));
    await expect(answerOf(() => worker)).rejects.toMatchObject(refused('garbled'));
  });
});
