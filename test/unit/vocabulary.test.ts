import { readFileSync } from 'node:fs';
import path from 'node:path';

import { Tokenizer as HuggingFaceTokenizer } from 'tokenizers';

import { ModelFormatError, UnsupportedModelError } from '../../lib/errors';
import { readVocabulary, type Vocabulary } from '../../lib/tokenizer/vocabulary';
import { bundledModel } from '../helpers/engine';
import { describeWithShared } from '../helpers/shared-data';

const bytesOf = ({ bytes, offsets }: Vocabulary, id: number) => [...bytes.subarray(offsets[id], offsets[id + 1])];
const textOf = (vocabulary: Vocabulary, id: number) => Buffer.from(bytesOf(vocabulary, id)).toString();
const size = ({ special }: Vocabulary) => special.length;

const make = (decoder: unknown, vocab: Record<string, unknown> | unknown[], added: object[] = []) =>
  readVocabulary({ decoder, model: { vocab }, added_tokens: added });

const BYTE_LEVEL = { type: 'ByteLevel' };
const REPLACE = { type: 'Replace', pattern: { String: '▁' }, content: ' ' };
const BYTE_FALLBACK = { type: 'ByteFallback' };
const FUSE = { type: 'Fuse' };
const STRIP = { type: 'Strip', content: ' ', start: 1, stop: 0 };
const sequence = (...decoders: object[]) => ({ type: 'Sequence', decoders });

describe('a byte-level vocabulary', () => {
  it("undoes GPT-2's spelling of all 256 bytes", () => {
    const characters = readFileSync(path.join(bundledModel, 'tokenizer.json'), 'utf8');
    const { model } = JSON.parse(characters) as { model: { vocab: Record<string, number> } };
    const vocabulary = make(BYTE_LEVEL, model.vocab);
    const single = Object.entries(model.vocab).filter(([token]) => token.length === 1);
    const bytes = single.map(([, id]) => bytesOf(vocabulary, id)[0]!);
    expect(bytes.sort((a, b) => a - b)).toEqual(Array.from({ length: 256 }, (_, byte) => byte));
  });

  it('spells spaces, newlines and parts of characters', () => {
    const vocabulary = make(BYTE_LEVEL, { Ġthe: 0, Ċ: 1, Ã: 2 });
    expect(textOf(vocabulary, 0)).toBe(' the');
    expect(textOf(vocabulary, 1)).toBe('\n');
    expect(bytesOf(vocabulary, 2)).toEqual([0xc3]);
  });

  it('leaves a token with other characters as it is', () => {
    expect(textOf(make(BYTE_LEVEL, { 日本: 0 }), 0)).toBe('日本');
  });

  it('takes added tokens at their word', () => {
    const added = [
      { id: 1, content: 'Ġ é', special: false },
      { id: 2, content: '<｜end▁of▁sentence｜>', special: true },
    ];
    const vocabulary = make(BYTE_LEVEL, { a: 0 }, added);
    expect(textOf(vocabulary, 1)).toBe('Ġ é');
    expect(textOf(vocabulary, 2)).toBe('<｜end▁of▁sentence｜>');
    expect([...vocabulary.special]).toEqual([0, 0, 1]);
  });
});

describe('other vocabularies', () => {
  it('of Llama 2 and Mistral keep the first space: generated text goes on', () => {
    const vocabulary = make(sequence(REPLACE, BYTE_FALLBACK, FUSE, STRIP), {
      '▁the': 0,
      '<0x0A>': 1,
      'a▁b': 2,
      '<0xE2>': 3,
    });
    expect(textOf(vocabulary, 0)).toBe(' the');
    expect(bytesOf(vocabulary, 1)).toEqual([10]);
    expect(textOf(vocabulary, 2)).toBe('a b');
    expect(bytesOf(vocabulary, 3)).toEqual([0xe2]);
  });

  it('of Gemma have no strip', () => {
    expect(textOf(make(sequence(REPLACE, BYTE_FALLBACK, FUSE), { '▁▁': 0 }), 0)).toBe('  ');
  });

  it('with Metaspace replace its character', () => {
    expect(textOf(make({ type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' }, { '▁x': 0 }), 0)).toBe(' x');
  });

  it('of Unigram models are lists', () => {
    const vocabulary = make({ type: 'Metaspace', replacement: '▁' }, [['<unk>', 0], ['▁a', -1.5]]); // prettier-ignore
    expect(textOf(vocabulary, 1)).toBe(' a');
  });

  it('treat a replacement literally', () => {
    expect(textOf(make({ type: 'Replace', pattern: { String: '.' }, content: '$&' }, { 'a.b': 0 }), 0)).toBe('a$&b');
  });

  it('leave gaps empty', () => {
    const vocabulary = make(BYTE_LEVEL, { a: 0, b: 3 });
    expect(size(vocabulary)).toBe(4);
    expect([1, 2].map((id) => bytesOf(vocabulary, id))).toEqual([[], []]);
    expect(textOf(vocabulary, 3)).toBe('b');
  });

  it('know their longest token', () => {
    expect(make(BYTE_LEVEL, { a: 0, abc: 1 }, [{ id: 2, content: 'éé', special: true }]).longestToken).toBe(4);
  });
});

describe('a tokenizer that is not known', () => {
  it.each([
    [{ type: 'WordPiece' }, 'WordPiece'],
    [{ type: 'CTC' }, 'CTC'],
    [{ type: 'Replace', pattern: { Regex: '\\s' }, content: ' ' }, 'Replace with a regular expression'],
    [STRIP, 'Strip'],
    [sequence(STRIP, FUSE), 'Strip'],
    [sequence(FUSE, { ...STRIP, stop: 1 }), 'Strip after Fuse'],
    [sequence(FUSE, REPLACE), 'Replace after Fuse'],
    [null, 'none'],
  ])('%j is refused by name', (decoder, name) => {
    expect(() => make(decoder, { a: 0 })).toThrow(UnsupportedModelError);
    expect(() => make(decoder, { a: 0 })).toThrow(`a decoder that heddle does not know: ${name}`);
  });

  it.each([
    [null],
    [[]],
    [{ decoder: BYTE_LEVEL }],
    [{ decoder: BYTE_LEVEL, model: { vocab: 5 } }],
    [{ decoder: BYTE_LEVEL, model: { vocab: { a: -1 } } }],
    [{ decoder: BYTE_LEVEL, model: { vocab: { a: 1.5 } } }],
    [{ decoder: BYTE_LEVEL, model: { vocab: { a: 2 ** 30 } } }],
    [{ decoder: BYTE_LEVEL, model: { vocab: { a: '1' } } }],
    [{ decoder: BYTE_LEVEL, model: { vocab: [[5, 0]] } }],
    [{ decoder: BYTE_LEVEL, model: { vocab: {} }, added_tokens: {} }],
    [{ decoder: BYTE_LEVEL, model: { vocab: {} }, added_tokens: [{ id: 1 }] }],
    [{ decoder: { type: 'Sequence' }, model: { vocab: {} } }],
    [{ decoder: { type: 'Metaspace' }, model: { vocab: {} } }],
  ])('%j is refused as broken', (content) => expect(() => readVocabulary(content)).toThrow(ModelFormatError));
});

describe('against the tokenizers library', () => {
  const compare = async (folder: string) => {
    const content = readFileSync(path.join(folder, 'tokenizer.json'), 'utf8');
    const tokenizer = HuggingFaceTokenizer.fromString(content);
    const vocabulary = readVocabulary(JSON.parse(content));
    expect(size(vocabulary)).toBe(tokenizer.getVocabSize());
    const ids = Array.from({ length: size(vocabulary) }, (_, id) => id);
    const texts = await tokenizer.decodeBatch(ids.map((id) => [id]), false); // prettier-ignore
    expect(ids.map((id) => textOf(vocabulary, id))).toEqual(texts);
    const text = 'She had—naïvely—“hoped” 日本語 😀\n\tfor the best.';
    const encoded = (await tokenizer.encode(text)).getIds().slice(1);
    expect(Buffer.from(encoded.flatMap((id) => bytesOf(vocabulary, id))).toString()).toBe(text);
  };

  it('every token of the bundled model has the same text', () => compare(bundledModel));
  describeWithShared('and of', 'models/tiny-lexicon-deepseek-v3', (folder) => {
    it('the DeepSeek-V3 model', () => compare(folder));
  });
});
