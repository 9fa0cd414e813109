import { resolveMessages, resolvePrompt, resolveTokenIds } from '../../lib/config/prompt';
import { resolveChatOptions, resolveCloseOptions, resolveRequestOptions } from '../../lib/config/request-options';
import { InvalidArgumentError } from '../../lib/errors';
import type { ChatMessage, Prompt } from '../../types/index';

describe('a prompt', () => {
  const resolve = (prompt: unknown) => resolvePrompt(prompt as Prompt, { vocabSize: 10, maxModelLen: 5 });

  it('is text or ids', () => {
    expect(resolve('hi')).toEqual({ text: 'hi' });
    expect(resolve({ text: 'hi' })).toEqual({ text: 'hi' });
    expect(resolve({ tokenIds: [0, 9] })).toEqual({ tokenIds: Int32Array.of(0, 9) });
    expect(resolve({ tokenIds: Uint16Array.of(1, 2) })).toEqual({ tokenIds: Int32Array.of(1, 2) });
    expect(resolve({ tokenIds: { length: 1, 0: 3 } })).toEqual({ tokenIds: Int32Array.of(3) });
  });

  it('is copied', () => {
    const tokenIds = Int32Array.of(1, 2);
    const resolved = resolve({ tokenIds });
    tokenIds[0] = 9;
    expect(resolved).toEqual({ tokenIds: Int32Array.of(1, 2) });
  });

  it('of 100,000 ids is read in no time', () => {
    const tokenIds = Array.from({ length: 100_000 }, (_, i) => i);
    const resolved = resolvePrompt({ tokenIds }, { vocabSize: 100_000, maxModelLen: 100_001 });
    expect(resolved).toEqual({ tokenIds: Int32Array.from(tokenIds) });
  });

  it.each([
    [5],
    [null],
    [undefined],
    [Symbol('s')],
    [[1, 2]],
    [{}],
    [{ txt: 'hi' }],
    [{ text: 'hi', tokenIds: [1] }],
    [{ text: 5 }],
    ['a\ud800b'],
    [{ text: '\udc00' }],
    [{ tokenIds: [] }],
    [{ tokenIds: 5 }],
    [{ tokenIds: 'ids' }],
    [{ tokenIds: {} }],
    [{ tokenIds: { length: 2 ** 40 } }],
    [{ tokenIds: { length: -1 } }],
    [{ tokenIds: [10] }],
    [{ tokenIds: [-1] }],
    [{ tokenIds: [1.5] }],
    [{ tokenIds: [NaN] }],
    [{ tokenIds: ['1'] }],
    [{ tokenIds: [1n] }],
    [{ tokenIds: BigInt64Array.of(1n) }],
    [{ tokenIds: [, 1] }],
    [{ tokenIds: [{ valueOf: (): number => 1 }] }],
    [{ tokenIds: [1, 2, 3, 4, 5] }],
    [{ get tokenIds() { throw new Error('no'); } }], // prettier-ignore
    [{ tokenIds: { length: 1, get 0() { throw new Error('no'); } } }], // prettier-ignore
  ])('%# that is wrong is refused', (prompt) => expect(() => resolve(prompt)).toThrow(InvalidArgumentError));

  it('is refused with position, expectation and value', () => {
    expect(() => resolve({ tokenIds: [1, 10] })).toThrow(
      'prompt.tokenIds[1] must be an integer from 0 to 9, received 10',
    );
    expect(() => resolve({ tokenIds: [1, 1, 1, 1, 1] })).toThrow(
      'prompt must have at most 4 tokens (maxModelLen 5, less one to generate), received 5',
    );
    expect(() => resolve({ tokenIds: [] })).toThrow('prompt must have at least 1 token, received 0');
    const kinds = 'prompt must be a string, { text } or { tokenIds }, received';
    expect(() => resolve(5)).toThrow(`${kinds} 5`);
    expect(() => resolve(null)).toThrow(`${kinds} null`);
    expect(() => resolve([1, 2, 3])).toThrow(`${kinds} an array of 3`);
    expect(() => resolve(Int32Array.of(1))).toThrow(`${kinds} a typed array`);
  });

  it('for decode may be long or empty', () => {
    expect(resolveTokenIds([], 'tokenIds', 10)).toHaveLength(0);
    expect(resolveTokenIds(new Array(1000).fill(1), 'tokenIds', 10)).toHaveLength(1000);
    expect(() => resolveTokenIds({ length: 2 ** 30 }, 'tokenIds', 10)).toThrow('at most 2^24');
  });
});

describe('messages', () => {
  it('are copied', () => {
    const message = { role: 'user', content: 'hi' };
    const [copy] = resolveMessages([message]);
    expect(copy).toEqual(message);
    expect(copy).not.toBe(message);
  });

  it.each([
    [[]],
    ['hi'],
    [[{ role: 'user' }]],
    [[{ content: 'hi' }]],
    [[{ role: '', content: 'hi' }]],
    [[{ role: 'user', content: 5 }]],
    [[{ role: 'user', content: '\ud800' }]],
    [[{ role: 'user', content: 'hi', name: 'x' }]],
    [[null]],
    [new Array(2049).fill({ role: 'user', content: 'hi' })],
  ])('%# that are wrong are refused', (messages) => {
    expect(() => resolveMessages(messages as ChatMessage[])).toThrow(InvalidArgumentError);
  });

  it('are refused with their position', () => {
    const good = { role: 'user', content: 'hi' };
    expect(() => resolveMessages([good, { role: 'user', content: 5 } as never])).toThrow(
      'messages[1].content must be a string, received 5',
    );
  });
});

describe('request options', () => {
  it('have defaults', () => {
    expect(resolveRequestOptions({}, 'fcfs')).toEqual({ signal: null, priority: 0, cacheSalt: '', requestId: null });
  });

  it('know a priority only where there are priorities', () => {
    expect(resolveRequestOptions({ priority: -5 }, 'priority').priority).toBe(-5);
    expect(() => resolveRequestOptions({ priority: 1 }, 'fcfs')).toThrow(
      "priority must be 0 under schedulingPolicy 'fcfs', received 1",
    );
    expect(resolveRequestOptions({ priority: 0 }, 'fcfs').priority).toBe(0);
  });

  it.each([
    [{ signal: {} }],
    [{ signal: null }],
    [{ signal: new AbortController() }],
    [{ priority: 0.5 }],
    [{ priority: 2 ** 31 }],
    [{ cacheSalt: '' }],
    [{ cacheSalt: 'a b' }],
    [{ cacheSalt: 'é' }],
    [{ cacheSalt: 'x'.repeat(129) }],
    [{ requestId: 'line\nbreak' }],
    [{ requestId: 7 }],
    [{ sginal: undefined }],
  ])('%# that are wrong are refused', (options) => {
    expect(() => resolveRequestOptions(options as object, 'priority')).toThrow(InvalidArgumentError);
  });

  it('of a chat begin a turn unless the last message goes on', () => {
    const turns = { addGenerationPrompt: true, continueFinalMessage: false };
    expect(resolveChatOptions({}, 'fcfs')).toMatchObject(turns);
    expect(resolveChatOptions({ continueFinalMessage: true }, 'fcfs')).toMatchObject({ addGenerationPrompt: false });
    expect(() => resolveChatOptions({ continueFinalMessage: true, addGenerationPrompt: true }, 'fcfs')).toThrow(
      'addGenerationPrompt must be false',
    );
  });

  it('of close are checked', () => {
    expect(resolveCloseOptions({})).toEqual({ drain: false, timeoutMs: null });
    expect(() => resolveCloseOptions({ timeoutMs: -1 })).toThrow('timeoutMs');
    expect(() => resolveCloseOptions({ dran: true } as object)).toThrow('did you mean "drain"?');
  });
});
