/** Files that the `tokenizers` package ends the process with, and some of their sound neighbours. */
import { ModelFormatError } from '../../lib/errors';
import { checkTokenizerJson } from '../../lib/tokenizer/tokenizer-json';

const A = { Sequence: { id: 'A', type_id: 0 } };
const S = { SpecialToken: { id: '<s>', type_id: 0 } };
const template = (single: unknown[], specialTokens: object = {}) => ({
  post_processor: { type: 'TemplateProcessing', single, pair: [S], special_tokens: specialTokens },
});
const replace = (pattern: object) => ({ normalizer: { type: 'Replace', pattern, content: 'x' } });
const bpe = (merges: unknown[], prefix: string | null) => ({
  model: { type: 'BPE', vocab: {}, merges, continuing_subword_prefix: prefix },
});
const nested = (depth: number): object =>
  depth === 0 ? { type: 'Lowercase' } : { type: 'Sequence', normalizers: [nested(depth - 1)] };

/** A map of characters: units of a trie, and the texts of its leaves. */
function charsmap(units: number[], texts: Buffer | string = ''): object {
  const head = Buffer.alloc(4 + 4 * units.length);
  head.writeUInt32LE(4 * units.length);
  units.forEach((unit, i) => head.writeUInt32LE(unit, 4 + 4 * i));
  return precompiled(Buffer.concat([head, Buffer.from(texts as string)]).toString('base64'));
}
const precompiled = (precompiled_charsmap: unknown) => ({ normalizer: { type: 'Precompiled', precompiled_charsmap } });

/** A trie with one key, the letter a, and the place of its text. */
function trieOfA(value: number, offset = 512): number[] {
  const units = new Array<number>(1024).fill(0);
  units[0] = 256 << 10;
  const at = 256 ^ 0x61;
  units[at] = (((at ^ offset) << 10) | (1 << 8) | 0x61) >>> 0;
  if (offset < units.length) units[offset] = value;
  return units;
}

describe('a tokenizer.json', () => {
  it.each<[string, object, string]>([
    ['a template with an absent special token', template([S, A]), 'uses token "<s>", which its special_tokens lack'],
    ['a token by the name of a method', template([{ SpecialToken: { id: 'toString' } }]), 'uses token "toString"'],
    ['a template with a second sequence', template([{ Sequence: { id: 'B', type_id: 0 } }]), 'uses B'],
    [
      'such a template in a sequence',
      { post_processor: { type: 'Sequence', processors: [{ type: 'ByteLevel' }, template([S]).post_processor] } },
      'uses token "<s>"',
    ],
    ['nothing to prepend', { normalizer: { type: 'Prepend', prepend: '' } }, 'must prepend something'],
    [
      'nothing to prepend in a sequence',
      { normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '' }] } },
      'must prepend something',
    ],
    ['nothing to replace', replace({ String: '' }), 'Replace must match something'],
    ['an empty expression', replace({ Regex: '' }), 'Replace must match something'],
    ['an expression that may match nothing', replace({ Regex: 'q*' }), 'Replace must match something'],
    ['an expression of a place', replace({ Regex: '^' }), 'Replace must match something'],
    ['chunks of nothing', { pre_tokenizer: { type: 'FixedLength', length: 0 } }, 'FixedLength must be at least 1'],
    ['merges shorter than their prefix', bpe([['a', 'b']], '##'), 'continuing_subword_prefix'],
    ['such merges in the old spelling', bpe(['a ##b', 'a b'], '##'), 'continuing_subword_prefix'],
    ['too deep a normalizer', { normalizer: nested(5000) }, 'nested deeper'],
    ['no charsmap', precompiled(null), 'must be a string'],
    ['a charsmap that is not base64', precompiled('!!!'), 'must be base64'],
    ['an empty charsmap', precompiled(''), 'must hold a trie'],
    ['a charsmap of no trie', charsmap([]), 'must hold a trie'],
    ['a charsmap that is cut', precompiled(Buffer.from([8, 0, 0, 0, 0]).toString('base64')), 'must hold a trie'],
    ['a charsmap of other texts', charsmap(trieOfA(0), Buffer.of(0xff)), 'texts in UTF-8'],
    ['a trie of one unit', charsmap([0]), 'stays within its bounds'],
    ['a trie that leaves its bounds', charsmap([0x7ffffc00, ...new Array<number>(255).fill(0)]), 'within its bounds'],
    ['a leaf beyond the trie', charsmap(trieOfA(0, 4096)), 'within its bounds'],
    ['a text beyond the end', charsmap(trieOfA(9), 'A\0'), 'within its bounds'],
    ['a text in the middle of a character', charsmap(trieOfA(1), 'é\0'), 'within its bounds'],
  ])('with %s is refused', (_, json, message) => {
    expect(() => checkTokenizerJson(json)).toThrow(ModelFormatError);
    expect(() => checkTokenizerJson(json)).toThrow(message);
  });

  it.each<[string, unknown]>([
    ['a template', template([S, A], { '<s>': { id: '<s>', ids: [0], tokens: ['<s>'] } })],
    ['something to prepend', { normalizer: { type: 'Prepend', prepend: '▁' } }],
    ['something to replace', replace({ String: ' ' })],
    ['an expression that matches something', replace({ Regex: ' {2,}' })],
    ["an expression that is not JavaScript's", replace({ Regex: '(?i:a)++' })],
    ['no prefix', bpe([['a', 'b']], null)],
    ['a prefix', bpe([['a', '##b']], '##')],
    ['a normalizer as deep as may be', { normalizer: nested(60) }],
    ['a charsmap', charsmap(trieOfA(0), 'A\0')],
    ['shapes that the package refuses itself', { normalizer: 5, pre_tokenizer: [], post_processor: { type: 7 } }],
    ['another kind', [1]],
  ])('with %s passes', (_, json) => expect(() => checkTokenizerJson(json)).not.toThrow());
});
