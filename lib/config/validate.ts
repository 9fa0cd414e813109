/**
 * Checks of what callers pass: each returns the value or throws an {@link InvalidArgumentError} of one sentence that
 * names key, expectation and value. Nothing a caller passes can make them throw anything else.
 *
 * @module
 */
import { InvalidArgumentError } from '../errors';

/** Checks one value and returns it, interpreted. `key` is its path in messages, such as `'parallel.timeoutMs'`. */
export type Check<T> = (value: unknown, key: string) => T;

/** An object of options with every key there. */
export type Complete<T> = { [K in keyof T]-?: Exclude<T[K], undefined> };

/** A check for each key that an object may have. */
export type Checks<T> = { readonly [K in keyof T]-?: Check<Exclude<T[K], undefined>> };

/** What a key must be and is not. */
export function refuse(key: string, expectation: string, value: unknown): never {
  throw new InvalidArgumentError(`${key} must be ${expectation}, received ${describe(value)}`);
}

/** Refuses what is declared and does not exist yet. */
export function refuseForNow(what: string): never {
  throw new InvalidArgumentError(`${what} is not available yet in this version`);
}

/** Any value is refused: what the key is about does not exist yet. */
export const notYet: Check<never> = (_value, key) => refuseForNow(key);

const MAX_SHOWN = 60;

/** A value for a message: short, on one line, and safe whatever it is. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN)}…` : value);
    case 'number':
      return Object.is(value, -0) ? '-0' : String(value);
    case 'bigint':
      return value > -(10n ** 30n) && value < 10n ** 30n ? `${value}n` : 'a huge bigint';
    case 'symbol':
      return 'a symbol';
    case 'function':
      return 'a function';
    case 'object':
      return value === null ? 'null' : describeObject(value);
    default:
      return String(value);
  }
}

function describeObject(value: object): string {
  try {
    if (Array.isArray(value)) return `an array of ${value.length}`;
    if (ArrayBuffer.isView(value)) return 'a typed array';
  } catch {
    // A revoked proxy: an object like any other.
  }
  return 'an object';
}

/** Runs code of the caller's (getters, proxies), whose exceptions become typed errors; those of checks pass. */
export function readSafely<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof InvalidArgumentError) throw cause;
    throw new InvalidArgumentError(`${name} cannot be read: it throws`, { cause });
  }
}

/**
 * Checks an object of options. Only own enumerable keys count; `undefined` is absent; unknown keys are refused.
 *
 * @param name - What the object is, in messages.
 * @param prefix - Path of its keys in messages, such as `'parallel.'`.
 */
export function readObject<T extends object>(
  value: unknown,
  name: string,
  checks: Checks<T>,
  prefix = '',
): Partial<Complete<T>> {
  if (typeof value !== 'object' || value === null || readSafely(name, () => Array.isArray(value))) {
    refuse(name, 'an object', value);
  }
  const entries = readSafely(name, () => Object.entries(value));
  const result: Partial<Complete<T>> = {};
  for (const [key, entry] of entries) {
    if (!Object.hasOwn(checks, key)) refuseKey(key, name, Object.keys(checks));
    if (entry !== undefined) result[key as keyof T] = checks[key as keyof T](entry, prefix + key);
  }
  return result;
}

function refuseKey(key: string, name: string, known: string[]): never {
  const near = nearest(key, known);
  throw new InvalidArgumentError(`unknown key ${describe(key)} in ${name}${near ? `; did you mean "${near}"?` : ''}`);
}

/** The known key that `key` is most likely meant to be: `top_p` for `topP`, one or two slips of the hand. */
function nearest(key: string, known: string[]): string | undefined {
  if (key.length > MAX_SHOWN) return undefined;
  const plain = (text: string): string => text.replace(/[_-]/g, '').toLowerCase();
  const distances = known.map((name) => editDistance(plain(key), plain(name)));
  const best = Math.min(...distances);
  return best <= Math.min(2, Math.floor(key.length / 3)) ? known[distances.indexOf(best)] : undefined;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; ++i) {
    const next = [i];
    for (let j = 1; j <= b.length; ++j) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

/** A finite number in [min, max], or in (min, max] when `openBelow`. */
export function number(min: number, max: number, openBelow = false): Check<number> {
  const expectation = openBelow
    ? `a finite number greater than ${min} and at most ${max}`
    : `a finite number from ${min} to ${max}`;
  return (value, key) => {
    const ok = typeof value === 'number' && (openBelow ? value > min : value >= min) && value <= max;
    return ok ? value : refuse(key, expectation, value);
  };
}

/** An integer in [min, max]; by default all that a number can hold exactly. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): Check<number> {
  const expectation =
    max === Number.MAX_SAFE_INTEGER
      ? `an integer of at least ${min} and below 2^53`
      : `an integer from ${min} to ${max}`;
  return (value, key) => {
    const ok = typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max;
    return ok ? value : refuse(key, expectation, value);
  };
}

export const boolean: Check<boolean> = (value, key) =>
  typeof value === 'boolean' ? value : refuse(key, 'true or false', value);

/** One of a few strings or numbers. Those in `later` are known, and refused as not available yet. */
export function oneOf<const T extends string | number>(values: readonly T[], later: readonly T[] = []): Check<T> {
  const shown = values.map((value) => describe(value));
  const last = shown.pop()!;
  const expectation = shown.length > 0 ? `one of ${shown.join(', ')} and ${last}` : last;
  return (value, key) => {
    if (values.includes(value as T)) return value as T;
    return later.includes(value as T) ? refuseForNow(`${key} ${describe(value)}`) : refuse(key, expectation, value);
  };
}

/** 1 to 128 printable ASCII characters, without spaces. */
export const label: Check<string> = (value, key) =>
  typeof value === 'string' && /^[\x21-\x7e]{1,128}$/.test(value)
    ? value
    : refuse(key, 'a string of 1 to 128 printable ASCII characters without spaces', value);

/** A string of whole characters: no lone surrogates, which no tokenizer can read. */
export const wellFormedText: Check<string> = (value, key) => {
  if (typeof value !== 'string') refuse(key, 'a string', value);
  // Node 20 has it; TypeScript's es2023 does not know it yet. It is some thousand times faster than a regular expression.
  if (!(value as string & { isWellFormed(): boolean }).isWellFormed()) {
    throw new InvalidArgumentError(`${key} must be well-formed Unicode, received a string with a lone surrogate`);
  }
  return value;
};

/** A well-formed string of 1 to `maxBytes` bytes in UTF-8. */
export function shortText(maxBytes: number): Check<string> {
  const expectation = `a string of 1 to ${maxBytes} bytes`;
  return (value, key) => {
    if (typeof value !== 'string' || value === '' || value.length > maxBytes) refuse(key, expectation, value);
    if (Buffer.byteLength(value) > maxBytes) refuse(key, expectation, value);
    return wellFormedText(value, key);
  };
}

/** An array, or typed array, of `min` to `max` items, each checked. `expectation` is for what is no array at all. */
export function listOf<T>(check: Check<T>, min: number, max: number, expectation = 'an array'): Check<T[]> {
  return (value, key) => {
    const list = readList(value, key, min, max, expectation);
    return readSafely(key, () => Array.from(list)).map((item, i) => check(item, `${key}[${i}]`));
  };
}

/** Whether a value is an array or a typed array. */
export function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && 'length' in value);
}

function readList(value: unknown, key: string, min: number, max: number, expectation: string): ArrayLike<unknown> {
  const list = readSafely(key, () => (isList(value) ? value : refuse(key, expectation, value)));
  const length = readSafely(key, () => list.length);
  return length < min || length > max ? refuse(key, `an array of ${min} to ${max} items`, value) : list;
}

const MAX_TOKEN_ID = 2 ** 31 - 1;

/** An integer that is an id of some vocabulary; {@link checkTokenIds} knows which. */
export const tokenId = integer(0, MAX_TOKEN_ID);

/** An array, or typed array, of `min` to `max` such ids, copied. It may hold a whole vocabulary, and takes no time then. */
export function tokenIdList(min: number, max: number): Check<Int32Array> {
  return (value, key) => {
    const list = readList(value, key, min, max, 'an array');
    return readSafely(key, () => readTokenIds(list, list.length, key, MAX_TOKEN_ID + 1));
  };
}

/** Refuses ids beyond the width of the logits: native code indexes with them. */
export function checkTokenIds(ids: Int32Array, key: string, vocabSize: number): void {
  for (let i = 0; i < ids.length; ++i) {
    if (ids[i]! >= vocabSize) refuse(`${key}[${i}]`, `a token id below the vocabulary's size ${vocabSize}`, ids[i]);
  }
}

/** Copies `length` token ids out of an array-like, checking each in one pass. */
export function readTokenIds(list: ArrayLike<unknown>, length: number, key: string, vocabSize: number): Int32Array {
  const ids = new Int32Array(length);
  for (let i = 0; i < length; ++i) {
    const id = list[i];
    if (typeof id !== 'number' || id >>> 0 !== id || id >= vocabSize) {
      refuse(`${key}[${i}]`, `an integer from 0 to ${vocabSize - 1}`, id);
    }
    ids[i] = id;
  }
  return ids;
}
