import { readFileSync } from 'node:fs';
import path from 'node:path';

import { Tokenizer as HuggingFaceTokenizer } from 'tokenizers';

import { ModelFormatError } from '../../lib/errors';
import { readTokenizerContent } from '../../lib/tokenizer/content';
import { bundledModel } from '../helpers/engine';

const text = readFileSync(path.join(bundledModel, 'tokenizer.json'), 'utf8');
interface Json {
  truncation: unknown;
  model: { vocab: Record<string, number>; merges: unknown[] };
}
const parsed = JSON.parse(text) as Json;
const mergesOf = (merges: unknown[]): unknown[] => {
  const { json } = readTokenizerContent(JSON.stringify({ ...parsed, model: { ...parsed.model, merges } }));
  return (JSON.parse(json) as Json).model.merges;
};

describe('the content for the tokenizers package', () => {
  it('gives the same tokens as the file', async () => {
    const [given, original] = [readTokenizerContent(text).json, text].map((json) =>
      HuggingFaceTokenizer.fromString(json),
    );
    const sample = 'She had "always" hoped; naïve 漢字 😀\n\n  42 <|end|>';
    const ids = async (tokenizer: HuggingFaceTokenizer) =>
      (await tokenizer.encode(sample, null, { addSpecialTokens: true })).getIds();
    expect(await ids(given!)).toEqual(await ids(original!));
  });

  it('has merges as strings', () => {
    expect(mergesOf([['a', 'b'], ['\u00a0', '\n']])).toEqual(['a b', '\u00a0 \n']); // prettier-ignore
    expect(mergesOf(['a b'])).toEqual(['a b']);
  });

  it.each([[[['a', 'b c']]], [[['#version', 'a']]], [[['a']]], [[['a', 5]]]])(
    'has merges as they are where a string would say something else, as in %j',
    (merges) => expect(mergesOf(merges)).toEqual(merges),
  );

  it('neither cuts nor fills up', () => {
    const { json } = readTokenizerContent(JSON.stringify({ ...parsed, truncation: { max_length: 2 }, padding: {} }));
    expect(JSON.parse(json)).toMatchObject({ truncation: null, padding: null });
  });

  it('is checked first', () => {
    const broken = JSON.stringify({ ...parsed, normalizer: { type: 'Prepend', prepend: '' } });
    expect(() => readTokenizerContent(broken)).toThrow(ModelFormatError);
  });

  it.each(['extra', 'normalizer', 'decoder'])('is refused with a typed error where %s is nested too deeply', (key) => {
    const nested = '['.repeat(20_000) + ']'.repeat(20_000);
    const tokenizer = JSON.stringify({ ...parsed, [key]: 'to be nested' }).replace('"to be nested"', nested);
    expect(() => readTokenizerContent(tokenizer)).toThrow(ModelFormatError);
  });
});
