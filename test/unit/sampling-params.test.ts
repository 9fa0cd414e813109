import { readGenerationConfig } from '../../lib/config/generation-config';
import { resolveSamplingParams, type SamplingContext } from '../../lib/config/sampling-params';
import { InvalidArgumentError, ModelFormatError } from '../../lib/errors';
import type { SamplingParams } from '../../types/index';

const plain: SamplingContext = {
  vocabSize: 100,
  maxLogprobs: 20,
  defaults: readGenerationConfig(undefined),
  hasTokenizer: true,
};
const resolve = (params: object, context: Partial<SamplingContext> = {}) =>
  resolveSamplingParams(params, { ...plain, ...context });

describe('SamplingParams', () => {
  it("have vLLM's defaults, except maxTokens", () => {
    expect(resolve({})).toEqual({
      n: 1,
      temperature: 1,
      topP: 1,
      topK: 0,
      minP: 0,
      presencePenalty: 0,
      frequencyPenalty: 0,
      repetitionPenalty: 1,
      seed: null,
      maxTokens: null,
      minTokens: 0,
      ignoreEos: false,
      stop: [],
      stopTokenIds: new Int32Array(0),
      includeStopStrInOutput: false,
      logprobs: -1,
      promptLogprobs: -1,
      logitBiasIds: new Int32Array(0),
      logitBiasValues: new Float32Array(0),
      allowedTokenIds: new Int32Array(0),
      badWords: [],
      repetitionDetection: { maxPatternSize: 0, minPatternSize: 0, minCount: 0 },
      detokenize: true,
      skipSpecialTokens: true,
      outputKind: 'delta',
      streamInterval: 1,
      skipReadingPrefixCache: false,
    });
  });

  it('are frozen', () => expect(Object.isFrozen(resolve({}))).toBe(true));

  it('accept their whole range', () => {
    const edges: SamplingParams[] = [
      {
        n: 16,
        temperature: 100,
        topP: 1,
        topK: -1,
        minP: 1,
        presencePenalty: 2,
        frequencyPenalty: -2,
        repetitionPenalty: 10,
      },
      { seed: 2 ** 53 - 1 },
      { seed: 2n ** 64n - 1n },
      { maxTokens: 2 ** 53 - 1, minTokens: 5 },
      { stop: Array.from({ length: 16 }, () => 'x'.repeat(256)) },
      { stopTokenIds: [0, 99], logprobs: 20, promptLogprobs: 0 },
      { logitBias: { 0: -100, 99: 100 }, allowedTokenIds: [99] },
      { badWords: Array.from({ length: 256 }, () => 'w') },
      { repetitionDetection: { maxPatternSize: 256, minPatternSize: 256, minCount: 256 } },
      { streamInterval: 1024, outputKind: 'final_only', prefixCache: 'skip' },
      { n: 4, temperature: 0 },
    ];
    for (const params of edges) expect(() => resolve(params)).not.toThrow();
  });

  it('switch all filters off when greedy, as in vLLM', () => {
    expect(resolve({ temperature: 0, topP: 0.5, topK: 5, minP: 0.5 })).toMatchObject({
      temperature: 0,
      topP: 1,
      topK: 0,
      minP: 0,
    });
  });

  it('raise temperatures that would overflow, as in vLLM', () => {
    expect(resolve({ temperature: 0.001 }).temperature).toBe(0.01);
  });

  it('read topK of -1 and of the whole vocabulary as all', () => {
    expect(resolve({ topK: -1 }).topK).toBe(0);
    expect(resolve({ topK: 100 }).topK).toBe(0);
    expect(resolve({ topK: 99 }).topK).toBe(99);
  });

  it('read -1 log-probabilities as the whole vocabulary', () => {
    expect(resolve({ logprobs: -1 }, { maxLogprobs: -1 }).logprobs).toBe(100);
    expect(resolve({ logprobs: -1 }, { maxLogprobs: 100 }).logprobs).toBe(100);
    expect(resolve({ logprobs: 0 }).logprobs).toBe(0);
    expect(resolve({ logprobs: 20 }, { vocabSize: 8 }).logprobs).toBe(8);
    expect(resolve({ logprobs: 2 ** 40 }, { maxLogprobs: -1 }).logprobs).toBe(100);
  });

  it.each(['logprobs', 'promptLogprobs'] as const)("keep %s within the engine's maxLogprobs", (key) => {
    expect(resolve({ [key]: 30 }, { maxLogprobs: 30 })[key]).toBe(30);
    const refused = (value: number, maxLogprobs: number) =>
      expect(() => resolve({ [key]: value }, { maxLogprobs })).toThrow(
        `${key} must be an integer from 0 to ${maxLogprobs} (the engine's maxLogprobs), received ${value}`,
      );
    refused(21, 20);
    refused(-1, 99);
    refused(1, 0);
  });

  it('do not look for prefixes when the logits of the prompt are wanted', () => {
    expect(resolve({ promptLogprobs: 0 }).skipReadingPrefixCache).toBe(true);
    expect(resolve({ prefixCache: 'skip' }).skipReadingPrefixCache).toBe(true);
  });

  it('take a whole vocabulary of allowed ids without describing each', () => {
    const allowedTokenIds = Array.from({ length: 200_000 }, (_, i) => i);
    const resolved = resolve({ allowedTokenIds }, { vocabSize: 200_000 }).allowedTokenIds;
    expect(resolved).toEqual(Int32Array.from(allowedTokenIds));
    allowedTokenIds[199_999] = -1;
    expect(() => resolve({ allowedTokenIds }, { vocabSize: 200_000 })).toThrow(
      'allowedTokenIds[199999] must be an integer from 0 to 2147483647, received -1',
    );
  });

  it('take one stop string without a list', () => expect(resolve({ stop: 'end' }).stop).toEqual(['end']));

  it('take biases as an object or a Map', () => {
    for (const logitBias of [
      { 7: 1.5, 8: -2 },
      new Map([
        [7, 1.5],
        [8, -2],
      ]),
    ]) {
      const { logitBiasIds, logitBiasValues } = resolve({ logitBias });
      expect([...logitBiasIds]).toEqual([7, 8]);
      expect([...logitBiasValues]).toEqual([1.5, -2]);
    }
  });

  it('complete the detection of repetitions', () => {
    expect(resolve({ repetitionDetection: { maxPatternSize: 4, minCount: 3 } }).repetitionDetection).toEqual({
      maxPatternSize: 4,
      minPatternSize: 1,
      minCount: 3,
    });
  });

  it('keep seeds exact', () => {
    expect(resolve({ seed: 2 ** 53 - 1 }).seed).toBe(9007199254740991n);
    expect(resolve({ seed: 18446744073709551615n }).seed).toBe(18446744073709551615n);
  });

  const BAD: [keyof SamplingParams, unknown[]][] = [
    ['n', [0, 17, 1.5, '1', null]],
    ['temperature', [-1, 101, NaN, Infinity, -Infinity, '1', null, true, {}, [], 1n, Symbol('t'), () => 1]],
    ['topP', [0, -0.1, 1.1, NaN]],
    ['topK', [-2, 0.5, Infinity]],
    ['minP', [-0.1, 1.1, NaN]],
    ['presencePenalty', [-2.1, 2.1, NaN]],
    ['frequencyPenalty', [-2.1, 2.1, NaN]],
    ['repetitionPenalty', [0, 10.1, NaN]],
    ['seed', [-1, 1.5, 2 ** 53, -1n, 2n ** 64n, '1', NaN]],
    ['maxTokens', [0, -1, 1.5, Infinity, NaN]],
    ['minTokens', [-1, 0.5, NaN]],
    ['ignoreEos', [0, 'true', null]],
    [
      'stop',
      ['', [''], [1], 7, Array.from({ length: 17 }, () => 'x'), 'x'.repeat(257), 'é'.repeat(129), ['\ud800'], null],
    ],
    ['stopTokenIds', [[100], [-1], [1.5], [NaN], ['1'], 5, Array.from({ length: 1025 }, () => 1), [, 1]]],
    ['includeStopStrInOutput', [1]],
    ['logprobs', [-2, 21, 1.5, true]],
    ['promptLogprobs', [-2, 21, NaN]],
    [
      'logitBias',
      [
        { 100: 1 },
        { '-1': 1 },
        { '01': 1 },
        { '1e1': 1 },
        { x: 1 },
        { 1: 101 },
        { 1: NaN },
        { 1: '1' },
        new Map([['1', 1]]),
        5,
        null,
      ],
    ],
    ['allowedTokenIds', [[], [100], [-1], [2 ** 31], 'all']],
    ['badWords', [[''], [' '], [1], 'word', Array.from({ length: 257 }, () => 'x')]],
    [
      'repetitionDetection',
      [
        {},
        { maxPatternSize: 2 },
        { minCount: 2 },
        { maxPatternSize: 0, minCount: 2 },
        { maxPatternSize: 2, minCount: 1 },
        { maxPatternSize: 2, minPatternSize: 3, minCount: 2 },
        { maxPatternSize: 2, minCount: 2, max: 1 },
        5,
      ],
    ],
    ['detokenize', [0]],
    ['skipSpecialTokens', ['no']],
    ['spacesBetweenSpecialTokens', [null]],
    ['outputKind', ['all', 'DELTA', 0]],
    ['streamInterval', [0, 1025, 1.5]],
    ['prefixCache', [true, 'no']],
  ];
  it.each(BAD.flatMap(([key, values]) => values.map((value, i) => [key, i, value] as const)))(
    'refuse %s, bad value %i, by name',
    (key, _, value) => {
      expect(() => resolve({ [key]: value })).toThrow(InvalidArgumentError);
      expect(() => resolve({ [key]: value })).toThrow(key);
    },
  );

  it('say exactly what is wrong', () => {
    expect(() => resolve({ temperature: -1 })).toThrow(
      /^temperature must be a finite number from 0 to 100, received -1$/,
    );
    expect(() => resolve({ temprature: 1 })).toThrow(
      /^unknown key "temprature" in SamplingParams; did you mean "temperature"\?$/,
    );
    expect(() => resolve({ stopTokenIds: [5, 100] })).toThrow(
      /^stopTokenIds\[1\] must be a token id below the vocabulary's size 100, received 100$/,
    );
    expect(() => resolve({ minTokens: 5, maxTokens: 4 })).toThrow(
      /^minTokens must be at most maxTokens \(4\), received 5$/,
    );
    expect(() => resolve({ stop: null })).toThrow(/^stop must be a string or an array of strings, received null$/);
    expect(() => resolve({ stop: 'x', detokenize: false })).toThrow(/^stop must be absent when detokenize is false/);
  });

  it('refuse reasoningBudget for now', () => {
    expect(() => resolve({ reasoningBudget: 100 })).toThrow(/^reasoningBudget is not available yet in this version$/);
  });

  it('know that text needs a tokenizer', () => {
    expect(() => resolve({ stop: 'x' }, { hasTokenizer: false })).toThrow('stop must be absent');
    expect(() => resolve({ badWords: ['x'] }, { hasTokenizer: false })).toThrow('badWords must be absent');
    expect(() => resolve({ badWords: [] }, { hasTokenizer: false })).not.toThrow();
  });

  it('refuse objects that throw', () => {
    expect(() => resolve({ get temperature() { throw new Error('no'); } })).toThrow(InvalidArgumentError); // prettier-ignore
    const list = new Proxy([1], { get: (target, key) => { if (key === '0') throw new Error('no'); return Reflect.get(target, key) as unknown; } }); // prettier-ignore
    expect(() => resolve({ stopTokenIds: list })).toThrow(InvalidArgumentError);
  });
});

describe('generation_config.json', () => {
  it('gives the defaults that callers override', () => {
    const file = {
      temperature: 0.8,
      top_p: 0.9,
      top_k: 40,
      min_p: 0.1,
      repetition_penalty: 1.1,
      do_sample: false,
      max_new_tokens: 5,
    };
    const defaults = readGenerationConfig(file);
    const filters = { temperature: 0.8, topP: 0.9, topK: 40, minP: 0.1, repetitionPenalty: 1.1 };
    expect(resolve({}, { defaults })).toMatchObject({ ...filters, maxTokens: 5 });
    expect(resolve({ maxTokens: 7 }, { defaults }).maxTokens).toBe(7);
    expect(resolve({ temperature: 1, topK: 0 }, { defaults })).toMatchObject({ ...filters, temperature: 1, topK: 0 });
    expect(resolve({ temperature: 0 }, { defaults })).toMatchObject({
      topP: 1,
      topK: 0,
      minP: 0,
      repetitionPenalty: 1.1,
    });
  });

  it("holds minTokens to its max_new_tokens, as to a caller's maxTokens", () => {
    const defaults = readGenerationConfig({ max_new_tokens: 5 });
    expect(resolve({ minTokens: 6, maxTokens: 6 }, { defaults }).minTokens).toBe(6);
    expect(() => resolve({ minTokens: 6 }, { defaults })).toThrow(
      'minTokens must be at most maxTokens (5), received 6',
    );
  });

  it.each([
    [undefined, []],
    [{}, []],
    [{ eos_token_id: 5 }, [5]],
    [{ eos_token_id: [5, 7] }, [5, 7]],
    [{ eos_token_id: null, temperature: null }, []],
  ])('%j has the ends of sequence %j', (content, ids) => {
    expect([...readGenerationConfig(content).eosTokenIds]).toEqual(ids);
  });

  it.each([
    [[]],
    ['text'],
    [7],
    [{ temperature: 'hot' }],
    [{ temperature: -1 }],
    [{ top_p: 0 }],
    [{ top_k: 1.5 }],
    [{ repetition_penalty: 0 }],
    [{ max_new_tokens: 0 }],
    [{ eos_token_id: 'end' }],
    [{ eos_token_id: [-1] }],
  ])('%j is refused as broken', (content) => {
    expect(() => readGenerationConfig(content)).toThrow(ModelFormatError);
    expect(() => readGenerationConfig(content)).toThrow('generation_config.json is broken');
  });

  it('names the key that is wrong', () => {
    expect(() => readGenerationConfig({ top_p: 2 })).toThrow(
      'generation_config.json is broken: top_p must be a finite number greater than 0 and at most 1, received 2',
    );
  });
});
