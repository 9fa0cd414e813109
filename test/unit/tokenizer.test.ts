import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { InvalidArgumentError, ModelFormatError } from '../../lib/errors';
import { findBadWords } from '../../lib/tokenizer/bad-words';
import { Tokenizer } from '../../lib/tokenizer/tokenizer';
import { bundledModel } from '../helpers/engine';

const content = readFileSync(path.join(bundledModel, 'tokenizer.json'), 'utf8');
const edited = (change: (json: Record<string, unknown>) => void) => {
  const json = JSON.parse(content) as Record<string, unknown>;
  change(json);
  return JSON.stringify(json);
};

describe('Tokenizer', () => {
  let tokenizer: Tokenizer;
  beforeAll(async () => (tokenizer = await Tokenizer.load(content)));

  it('adds special tokens when asked to', async () => {
    const withSpecial = await tokenizer.encode('river', { addSpecialTokens: true });
    const without = await tokenizer.encode('river', { addSpecialTokens: false });
    expect([...withSpecial]).toEqual([0, ...without]);
    expect(withSpecial).toBeInstanceOf(Int32Array);
  });

  it("reads a special token's name in a text as that token, as Hugging Face's libraries do", async () => {
    expect([...(await tokenizer.encode('<|end|>', { addSpecialTokens: false }))]).toEqual([1]);
  });

  it('refuses texts that are too long before it reads them, and others by their tokens', async () => {
    const limit = tokenizer.maxCharacters(7);
    await expect(
      tokenizer.encode('x'.repeat(limit + 1), { addSpecialTokens: true, name: 'prompt', maxTokens: 7 }),
    ).rejects.toThrow(`prompt must have at most ${limit} characters to fit into 7 tokens, received ${limit + 1}`);
    await expect(tokenizer.encode('a b c d e f g h', { addSpecialTokens: true, maxTokens: 7 })).rejects.toThrow(
      'text must have at most 7 tokens, received 9',
    );
  });

  it('lets no text of at most maxTokens tokens fall to the limit of characters', async () => {
    const { bytes, offsets, longestToken } = tokenizer.vocabulary;
    const id = offsets.findIndex((offset, i) => offsets[i + 1]! - offset === longestToken);
    const text = Buffer.from(bytes.subarray(offsets[id], offsets[id + 1]))
      .toString()
      .repeat(100);
    await expect(tokenizer.encode(text, { addSpecialTokens: false, maxTokens: 400 })).resolves.toBeDefined();
  });

  it('refuses texts of more than 4 Mi characters, whose runs of spaces would end the process', async () => {
    const settings = { addSpecialTokens: true };
    await expect(tokenizer.encode(' '.repeat(10_100_000) + 'x', settings)).rejects.toThrow(
      'text must have at most 4194304 characters, received 10100001',
    );
    await expect(tokenizer.encode('x'.repeat(2 ** 22 + 1), { ...settings, maxTokens: 1e9 })).rejects.toThrow(
      'text must have at most 4194304 characters, received 4194305',
    );
  });

  it('leaves threads of the pool to others, however many texts wait', async () => {
    const text = 'She had always hoped for the best. '.repeat(1700);
    const texts = Array.from({ length: 20 }, () => tokenizer.encode(text, { addSpecialTokens: false }));
    let numRead = 0;
    for (const encoding of texts) void encoding.then(() => numRead++);
    await readFile(__filename);
    expect(numRead).toBeLessThan(10);
    await Promise.all(texts);
  });

  it('refuses a text that it cannot read as the text, with the reason', async () => {
    const picky = await Tokenizer.load(
      edited((json) => (json['model'] = { type: 'WordLevel', vocab: { river: 0 }, unk_token: '[UNK]' })),
    );
    const reading = picky.encode('lake', { addSpecialTokens: false, name: 'prompt' });
    await expect(reading).rejects.toThrow(InvalidArgumentError);
    await expect(reading).rejects.toThrow(/^prompt cannot be read by the tokenizer: .*WordLevel error/);
    await expect(reading).rejects.toHaveProperty('cause');
    expect(await picky.encode('river', { addSpecialTokens: false })).toEqual(Int32Array.of(0));
  });

  it('neither cuts nor fills up what it was saved to cut or fill up', async () => {
    const cutting = await Tokenizer.load(
      edited((json) => {
        json['truncation'] = { direction: 'Right', max_length: 2, strategy: 'LongestFirst', stride: 0 };
        json['padding'] = {
          strategy: { Fixed: 50 },
          direction: 'Right',
          pad_id: 2,
          pad_type_id: 0,
          pad_token: '<|pad|>',
          pad_to_multiple_of: null,
        };
      }),
    );
    const text = 'She had always hoped for the best.';
    const settings = { addSpecialTokens: true };
    expect(await cutting.encode(text, settings)).toEqual(await tokenizer.encode(text, settings));
  });

  it('finds bad words at the beginning of a text and inside it, however many tokens each form has', async () => {
    const encode = async (text: string) => [...(await tokenizer.encode(text, { addSpecialTokens: false }))];
    for (const word of ['do', 'river', 'she hoped']) {
      const [plain, spaced] = [await encode(word), await encode(` ${word}`)];
      const found = await findBadWords(tokenizer, [word, ` ${word}`]);
      expect(found.map((ids) => [...ids])).toEqual([plain, spaced, plain, spaced]);
    }
    expect((await encode('do')).length).not.toBe((await encode(' do')).length);
  });

  it('finds one form of a bad word where a space before it changes nothing', async () => {
    const stripping = await Tokenizer.load(
      edited((json) => (json['normalizer'] = { type: 'Strip', strip_left: true, strip_right: true })),
    );
    expect(await findBadWords(stripping, ['river'])).toHaveLength(1);
  });
});

describe('tokenizer.json', () => {
  it.each([
    ['no JSON', '{"version":', 'tokenizer.json is not JSON'],
    ['of another kind', '{"model": 3}', 'tokenizer.json is broken'],
    [
      'with merges of tokens that do not exist',
      edited((json) => ((json['model'] as { merges: unknown[] }).merges = [['@@@', 'b']])),
      'out of vocabulary',
    ],
    [
      'with an unknown model',
      edited((json) => ((json['model'] as { type: string }).type = 'Nope')),
      'tokenizer.json is broken',
    ],
    [
      'with a broken pattern',
      edited(
        (json) =>
          (json['pre_tokenizer'] = { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated', invert: false }),
      ),
      'tokenizer.json is broken',
    ],
  ])('that is %s is refused', async (_, text, message) => {
    const loading = Tokenizer.load(text);
    await expect(loading).rejects.toThrow(ModelFormatError);
    await expect(loading).rejects.toThrow(message);
  });
});
