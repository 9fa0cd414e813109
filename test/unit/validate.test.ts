import {
  describe as describeValue,
  integer,
  label,
  listOf,
  number,
  oneOf,
  readObject,
  wellFormedText,
} from '../../lib/config/validate';
import { InvalidArgumentError } from '../../lib/errors';

const throwing = { get now(): number { throw new Error('no'); } }; // prettier-ignore
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};

describe('a value in a message', () => {
  it.each([
    ['text', '"text"'],
    ['x'.repeat(1000), `"${'x'.repeat(60)}…"`],
    ['line\nbreak', '"line\\nbreak"'],
    [-1, '-1'],
    [-0, '-0'],
    [NaN, 'NaN'],
    [Infinity, 'Infinity'],
    [7n, '7n'],
    [10n ** 100n, 'a huge bigint'],
    [Symbol('s'), 'a symbol'],
    [() => 1, 'a function'],
    [null, 'null'],
    [undefined, 'undefined'],
    [true, 'true'],
    [[1, 2, 3], 'an array of 3'],
    [new Int32Array(9), 'a typed array'],
    [{ a: 1 }, 'an object'],
    [Object.create(null), 'an object'],
    [throwing, 'an object'],
    [revoked(), 'an object'],
    [{ toString: () => { throw new Error('no'); } }, 'an object'], // prettier-ignore
  ])('%# is short and safe', (value, shown) => expect(describeValue(value)).toBe(shown));
});

describe('an object of options', () => {
  const checks = { topP: number(0, 1), count: integer(1), name: label };
  const read = (value: unknown) =>
    readObject<{ topP?: number; count?: number; name?: string }>(value, 'Options', checks);

  it('gives what is there, and takes undefined as absent', () => {
    expect(read({ topP: 0.5, count: undefined })).toEqual({ topP: 0.5 });
  });

  it('takes only own enumerable keys', () => {
    const value = Object.create({ topP: 9 }, { count: { value: -1, enumerable: false } }) as object;
    expect(read(value)).toEqual({});
    expect(read(Object.assign(Object.create(null), { count: 2 }))).toEqual({ count: 2 });
  });

  it('reads each key once', () => {
    let reads = 0;
    expect(read({ get topP() { return reads++ === 0 ? 0.5 : 9; } })).toEqual({ topP: 0.5 }); // prettier-ignore
  });

  it.each([
    ['toP', 'topP'],
    ['top_p', 'topP'],
    ['topp', 'topP'],
    ['counts', 'count'],
  ])('asks whether %s was meant to be %s', (key, meant) => {
    expect(() => read({ [key]: 1 })).toThrow(`unknown key "${key}" in Options; did you mean "${meant}"?`);
  });

  it('refuses a key that resembles none', () => {
    expect(() => read({ zzz: 1 })).toThrow(/^unknown key "zzz" in Options$/);
    expect(() => read({ __proto__: null, constructor: 1 })).toThrow('unknown key "constructor" in Options');
    expect(() => read({ ['x'.repeat(10_000)]: 1 })).toThrow(/^unknown key "x{60}…" in Options$/);
  });

  it.each([[null], [5], ['text'], [[1]], [() => 1]])('refuses %p instead of an object', (value) => {
    expect(() => read(value)).toThrow(/^Options must be an object, received /);
  });

  it('refuses objects that throw', () => {
    expect(() => read(throwing)).toThrow('Options cannot be read: it throws');
    expect(() => read(revoked())).toThrow(InvalidArgumentError);
    expect(() => read(new Proxy({}, { ownKeys: () => { throw new TypeError('no'); } }))).toThrow(InvalidArgumentError); // prettier-ignore
  });
});

describe('single checks', () => {
  const sentence = (check: () => unknown) => {
    try {
      check();
    } catch (error) {
      expect(error).toBeInstanceOf(InvalidArgumentError);
      return (error as Error).message;
    }
    throw new Error('was accepted');
  };

  it('say in one sentence what is expected', () => {
    expect(sentence(() => number(0, 100)(-1, 'temperature'))).toBe(
      'temperature must be a finite number from 0 to 100, received -1',
    );
    expect(sentence(() => number(0, 1, true)(0, 'topP'))).toBe(
      'topP must be a finite number greater than 0 and at most 1, received 0',
    );
    expect(sentence(() => integer(1, 16)(1.5, 'n'))).toBe('n must be an integer from 1 to 16, received 1.5');
    expect(sentence(() => integer(1)('7', 'maxTokens'))).toBe(
      'maxTokens must be an integer of at least 1 and below 2^53, received "7"',
    );
    expect(sentence(() => oneOf(['a', 'b', 'c'])('d', 'kind'))).toBe(
      'kind must be one of "a", "b" and "c", received "d"',
    );
    expect(sentence(() => oneOf(['a'], ['b'])('b', 'kind'))).toBe('kind "b" is not available yet in this version');
    expect(sentence(() => listOf(integer(0), 0, 2)([1, -1], 'ids'))).toBe(
      'ids[1] must be an integer of at least 0 and below 2^53, received -1',
    );
    expect(sentence(() => listOf(integer(0), 0, 2)([1, 2, 3], 'ids'))).toBe(
      'ids must be an array of 0 to 2 items, received an array of 3',
    );
    expect(sentence(() => wellFormedText('a\ud800', 'prompt'))).toBe(
      'prompt must be well-formed Unicode, received a string with a lone surrogate',
    );
  });

  it('take whole surrogate pairs', () => expect(wellFormedText('😀', 'prompt')).toBe('😀'));

  it('take typed arrays as lists, and refuse holes', () => {
    expect(listOf(integer(0), 0, 9)(Int32Array.of(1, 2), 'ids')).toEqual([1, 2]);
    expect(() => listOf(integer(0), 0, 9)([1, , 2], 'ids')).toThrow('ids[1]');
    expect(() => listOf(integer(0), 0, 9)(new DataView(new ArrayBuffer(8)), 'ids')).toThrow('ids must be an array');
  });
});
