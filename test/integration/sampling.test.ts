/** What each field of `SamplingParams` does to the text of the bundled model. */
import type { Engine } from '../../lib/index';
import type { CompletionOutput, GenerationDelta, Prompt, SamplingParams, TokenLogprobs } from '../../types/index';
import { bundledModel, createEngine, itOnCpu } from '../helpers/engine';

const END_OF_SEQUENCE = 1;
const MAX_MODEL_LEN = 256;

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine({
    model: bundledModel,
    dtype: 'float32', // the same text on every instruction set that has fused multiply-adds
    maxModelLen: MAX_MODEL_LEN,
    maxNumSeqs: 8,
    kvCacheBytes: 64 * 2 ** 20,
    maxLogprobs: 30,
  });
});
afterAll(() => engine.close());

/** Greedy unless a test says otherwise. */
const base: SamplingParams = { temperature: 0, maxTokens: 24, ignoreEos: true };
const complete = async (params: SamplingParams = {}, prompt: Prompt = 'She'): Promise<CompletionOutput> =>
  (await engine.generate(prompt, { ...base, ...params }).final()).outputs[0]!;
const answer = async (params: SamplingParams = {}): Promise<CompletionOutput> => {
  const question = [{ role: 'user', content: 'What does "harbor" mean?' }];
  return (await engine.chat(question, { temperature: 0, ...params }).final()).outputs[0]!;
};
const items = async (params: SamplingParams): Promise<GenerationDelta[]> => {
  const seen: GenerationDelta[] = [];
  for await (const item of engine.generate('She', { ...base, ...params })) seen.push(item);
  return seen;
};
const texts = (list: { text: string }[]) => list.map(({ text }) => text);
const idOf = async (word: string): Promise<number> => {
  const [id, ...others] = await engine.encode(word, { addSpecialTokens: false });
  expect(others).toEqual([]);
  return id!;
};
const numRepeats = ({ tokenIds }: CompletionOutput) => tokenIds.length - new Set(tokenIds).size;

/** Row `i` taken apart. */
const row = ({ k, tokenIds, logprobs, ranks }: TokenLogprobs, i: number) => {
  const begin = i * (k + 1);
  return {
    chosen: { id: tokenIds[begin]!, logprob: logprobs[begin]!, rank: ranks[i]! },
    bestIds: [...tokenIds.subarray(begin + 1, begin + 1 + k)],
    best: [...logprobs.subarray(begin + 1, begin + 1 + k)],
  };
};
const rows = (logprobs: TokenLogprobs) => Array.from(logprobs.ranks, (_, i) => row(logprobs, i));

it.each([1e-9, 1e-300, 5e-324])('topP, minP and repetitionPenalty may be as small as %p', async (tiny) => {
  const { tokenIds } = await complete();
  expect((await complete({ temperature: 1, topP: tiny })).tokenIds).toEqual(tokenIds);
  const sampled = { temperature: 1, seed: 1 };
  expect((await complete({ ...sampled, minP: tiny })).tokenIds).toEqual((await complete(sampled)).tokenIds);
  expect((await complete({ repetitionPenalty: tiny })).tokenIds).toHaveLength(24);
});

describe('stop strings', () => {
  const stop = 'ble to d'; // of the tokens " able", " to", " do"

  it('end the text before them, wherever tokens begin and end', async () => {
    const whole = (await complete()).text;
    expect(whole).toContain(stop);
    expect(await complete({ stop: ['never', stop] })).toMatchObject({
      text: whole.slice(0, whole.indexOf(stop)),
      finishReason: 'stop',
      stopReason: stop,
    });
  });

  it('belong to the text with includeStopStrInOutput', async () => {
    const { text, stopReason } = await complete({ stop, includeStopStrInOutput: true });
    expect(text.endsWith(stop)).toBe(true);
    expect(stopReason).toBe(stop);
  });

  it('are never shown in part', async () => {
    const seen = texts(await items({ stop })).join('');
    expect(seen).toBe((await complete({ stop })).text);
    expect(seen.endsWith(' a')).toBe(true);
  });

  it('do not count in the first minTokens tokens', async () => {
    expect((await complete({ stop, minTokens: 10 })).finishReason).toBe('length');
  });
});

describe('stop ids', () => {
  it('end the ids with themselves and the text before them, and are the stop reason', async () => {
    const id = await idOf(' do');
    const stopped = await complete({ stopTokenIds: [id] });
    expect(stopped).toMatchObject({ finishReason: 'stop', stopReason: id });
    expect(stopped.tokenIds.at(-1)).toBe(id);
    expect(stopped.text.endsWith(' able to')).toBe(true);
    const included = await complete({ stopTokenIds: [id], includeStopStrInOutput: true });
    expect(included.text).toBe(`${stopped.text} do`);
  });

  it("are not given as the reason of the model's own end, unless listed", async () => {
    const own = await answer();
    expect(own.finishReason).toBe('stop');
    expect(own).not.toHaveProperty('stopReason');
    expect(own.tokenIds.at(-1)).toBe(END_OF_SEQUENCE);
    expect((await answer({ stopTokenIds: [END_OF_SEQUENCE] })).stopReason).toBe(END_OF_SEQUENCE);
  });
});

describe('lengths', () => {
  it('minTokens keeps a sequence from its own end', async () => {
    const { tokenIds } = await answer();
    const longer = await answer({ minTokens: tokenIds.length + 8 });
    expect(longer.tokenIds.length).toBeGreaterThanOrEqual(tokenIds.length + 8);
    expect([...longer.tokenIds.subarray(0, tokenIds.length + 7)]).not.toContain(END_OF_SEQUENCE);
  });

  it('maxTokens defaults to what is left of maxModelLen', async () => {
    const tokenIds = new Int32Array(MAX_MODEL_LEN - 7).fill(6);
    const { outputs } = await engine.generate({ tokenIds }, { temperature: 0, ignoreEos: true }).final();
    expect(outputs[0]!.tokenIds).toHaveLength(7);
    expect(outputs[0]!.finishReason).toBe('length');
  });

  it('repetitionDetection ends a loop', async () => {
    const looping = { logitBias: { 17: 100 }, repetitionDetection: { maxPatternSize: 2, minCount: 5 } };
    const { tokenIds, finishReason, stopReason } = await complete(looping);
    expect({ ids: [...tokenIds], finishReason, stopReason }).toEqual({
      ids: [17, 17, 17, 17, 17],
      finishReason: 'stop',
      stopReason: 'repetition',
    });
  });
});

describe('streams', () => {
  it('yield the first token at once and then as many as streamInterval says', async () => {
    const seen = await items({ streamInterval: 5 });
    expect(seen.map(({ tokenIds }) => tokenIds.length)).toEqual([1, 5, 5, 5, 5, 3]);
    expect(texts(seen).join('')).toBe((await complete()).text);
  });

  it('yield all so far with outputKind cumulative', async () => {
    const seen = await items({ outputKind: 'cumulative', logprobs: 0 });
    seen.slice(1).forEach((item, i) => {
      expect(item.text.startsWith(seen[i]!.text)).toBe(true);
      expect(item.logprobs!.ranks).toHaveLength(item.tokenIds.length);
    });
    expect(seen.at(-1)).toMatchObject({ text: (await complete()).text, finishReason: 'length' });
  });

  it('yield one item with outputKind final_only', async () => {
    const seen = await items({ outputKind: 'final_only' });
    expect(texts(seen)).toEqual([(await complete()).text]);
    expect(seen[0]!.tokenIds).toHaveLength(24);
  });

  it('show special tokens where skipSpecialTokens is false, and set none apart', async () => {
    const special = { logitBias: { [END_OF_SEQUENCE]: 100 }, maxTokens: 2 };
    expect((await complete(special)).text).toBe('');
    for (const spacesBetweenSpecialTokens of [true, false]) {
      const shown = await complete({ ...special, skipSpecialTokens: false, spacesBetweenSpecialTokens });
      expect(shown.text).toBe('<|end|><|end|>');
    }
  });
});

describe('which tokens may come', () => {
  it('a bias of 100 forces a token, and one of -100 keeps it away', async () => {
    const id = await idOf(' was');
    expect((await complete()).tokenIds[0]).toBe(id);
    expect(new Set((await complete({ logitBias: { [id]: 100 } })).tokenIds)).toEqual(new Set([id]));
    expect([...(await complete({ logitBias: new Map([[id, -100]]) })).tokenIds]).not.toContain(id);
  });

  it('allowedTokenIds are the only ones, whatever the temperature', async () => {
    const allowed = [17, 19, 300];
    const { tokenIds } = await complete({ allowedTokenIds: allowed, temperature: 2, seed: 1 });
    expect(new Set(tokenIds)).toEqual(new Set(allowed));
  });

  it('badWords keep words out, of one token and of several', async () => {
    const { text } = await complete();
    expect(text).toContain(' able to do any thing');
    const other = (await complete({ badWords: ['able'] })).text;
    expect(other).not.toContain(' able');
    const several = (await complete({ badWords: ['any thing'] })).text;
    expect(several).toContain(' any');
    expect(several).not.toContain('any thing');
  });

  it('badWords keep a word out of mid-sentence, also where a space before it makes other tokens of it', async () => {
    const id = await idOf(' do');
    expect(await engine.encode('do', { addSpecialTokens: false })).toHaveLength(2);
    expect((await complete()).text).toContain(' to do any thing');
    expect((await complete({ badWords: ['do'] })).text).not.toContain(' do');
    const likely = await complete({ badWords: ['do'], logitBias: { [id]: 100 } });
    expect([...likely.tokenIds]).not.toContain(id);
  });

  it('a request that leaves itself none is told so, each of its sequences, and the engine goes on', async () => {
    const params = { ...base, n: 2, allowedTokenIds: [END_OF_SEQUENCE], minTokens: 1 };
    await expect(engine.generate('She', params).final()).rejects.toMatchObject({
      name: 'InvalidArgumentError',
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringMatching(/allowedTokenIds, badWords and minTokens/) as string,
      output: { outputs: [{ finishReason: 'error' }, { finishReason: 'error' }] },
    });
    expect(engine.health().status).toBe('idle');
    expect((await complete()).tokenIds).toHaveLength(24);
  });
});

describe('sampling', () => {
  const hot: SamplingParams = { temperature: 1, topP: 1, seed: 5 };

  it('gives the same text for the same seed, and another for another', async () => {
    const { text } = await complete(hot);
    expect((await complete(hot)).text).toBe(text);
    expect((await complete({ ...hot, seed: 6 })).text).not.toBe(text);
    expect((await complete({ ...hot, seed: 2n ** 64n - 1n })).text).not.toBe(text);
  });

  it.each([{ topK: 1 }, { minP: 1 }, { topP: 1e-6 }])('is greedy with %j', async (filter) => {
    expect((await complete({ ...hot, ...filter })).text).toBe((await complete()).text);
  });

  it('takes nothing below the topK best', async () => {
    const { logprobs } = await complete({ ...hot, topK: 3, logprobs: 3, maxTokens: 60 });
    expect(Math.max(...logprobs!.ranks)).toBe(3);
  });

  it('takes nothing beyond the share topP', async () => {
    const { logprobs } = await complete({ ...hot, topP: 0.5, logprobs: 30, maxTokens: 60 });
    expect(Math.max(...logprobs!.ranks)).toBeGreaterThan(1);
    for (const { chosen, best } of rows(logprobs!)) {
      const better = best.slice(0, chosen.rank - 1).reduce((sum, logprob) => sum + Math.exp(logprob), 0);
      expect(better).toBeLessThan(0.5);
    }
  });

  it('takes nothing less likely than minP times the best', async () => {
    const { logprobs } = await complete({ ...hot, minP: 0.2, logprobs: 1, maxTokens: 60 });
    expect(Math.max(...logprobs!.ranks)).toBeGreaterThan(1);
    for (const { chosen, best } of rows(logprobs!)) {
      expect(Math.exp(chosen.logprob - best[0]!)).toBeGreaterThan(0.2 - 1e-5);
    }
  });
});

describe('penalties', () => {
  const long = { maxTokens: 60 };
  /** Of several texts together: a single one may happen to go the other way. */
  const repeatsWith = async (params: SamplingParams): Promise<number> => {
    const prompts = ['She', 'He had', 'It was', 'My dear', 'When they', 'Nothing could'];
    const outputs = await Promise.all(prompts.map((prompt) => complete({ ...long, ...params }, prompt)));
    expect(outputs.every(({ cumulativeLogprob }) => Number.isFinite(cumulativeLogprob))).toBe(true);
    return outputs.reduce((sum, output) => sum + numRepeats(output), 0);
  };

  it('repetitionPenalty at its largest lets no token of prompt or output come again', async () => {
    const penalized = await complete({ ...long, repetitionPenalty: 10 });
    expect(numRepeats(await complete(long))).toBeGreaterThan(10);
    expect(numRepeats(penalized)).toBe(0);
    expect([...penalized.tokenIds]).not.toContain((await engine.encode('She')).at(-1));
  });

  it.each([{ frequencyPenalty: 2 }, { presencePenalty: 2 }])('%j makes repeats fewer', async (penalty) => {
    expect(await repeatsWith(penalty)).toBeLessThan(await repeatsWith({}));
  });

  it.each([{ frequencyPenalty: -2 }, { presencePenalty: -2 }, { repetitionPenalty: 0.5 }])(
    '%j makes repeats more, of finite log-probabilities',
    async (penalty) => {
      expect(await repeatsWith(penalty)).toBeGreaterThan(await repeatsWith({}));
    },
  );
});

describe('log-probabilities', () => {
  it('list the chosen token and then the k best, in order, with a rank that agrees', async () => {
    const { tokenIds, logprobs, cumulativeLogprob } = await complete({ temperature: 1, seed: 5, logprobs: 5 });
    expect(logprobs!.k).toBe(5);
    expect(rows(logprobs!).map(({ chosen }) => chosen.id)).toEqual([...tokenIds]);
    for (const { chosen, bestIds, best } of rows(logprobs!)) {
      expect(best).toEqual([...best].sort((a, b) => b - a));
      expect(best.filter((logprob) => logprob > chosen.logprob)).toHaveLength(Math.min(chosen.rank - 1, 5));
      expect(bestIds.includes(chosen.id)).toBe(chosen.rank <= 5);
      expect(chosen.logprob).toBeLessThanOrEqual(0);
    }
    const sum = rows(logprobs!).reduce((total, { chosen }) => total + chosen.logprob, 0);
    expect(cumulativeLogprob).toBeCloseTo(sum, 4);
  });

  it('are of the chosen token alone for 0, and absent unless asked for', async () => {
    const { logprobs } = await complete({ logprobs: 0 });
    expect([logprobs!.k, logprobs!.tokenIds.length]).toEqual([0, 24]);
    expect(await complete()).not.toHaveProperty('logprobs');
  });

  it('go up to maxLogprobs', async () => {
    expect((await complete({ logprobs: 30, maxTokens: 1 })).logprobs!.tokenIds).toHaveLength(31);
    for (const [key, value] of [
      ['logprobs', 31],
      ['logprobs', -1],
      ['promptLogprobs', 31],
      ['promptLogprobs', -1],
    ] as const) {
      expect(() => engine.generate('She', { [key]: value })).toThrow(
        `${key} must be an integer from 0 to 30 (the engine's maxLogprobs), received ${value}`,
      );
    }
  });

  itOnCpu('of a prompt are those of generating it, to the bit', async () => {
    const prompt = await engine.encode('She');
    const generated = await complete({ logprobs: 5 }, { tokenIds: prompt });
    const tokenIds = [...prompt, ...generated.tokenIds];
    const params = { ...base, maxTokens: 1, promptLogprobs: 5 };
    const { promptLogprobs } = await engine.generate({ tokenIds }, params).final();
    expect(promptLogprobs!.ranks).toHaveLength(tokenIds.length - 1);
    expect(rows(promptLogprobs!).slice(prompt.length - 1)).toEqual(rows(generated.logprobs!));
  });

  itOnCpu('come with each of n sequences, of which the first is that of n = 1', async () => {
    const params: SamplingParams = { ...base, temperature: 1, seed: 9, logprobs: 2, promptLogprobs: 2 };
    const { outputs, promptLogprobs } = await engine.generate('She was', { ...params, n: 3 }).final();
    expect(promptLogprobs!.ranks).toHaveLength((await engine.encode('She was')).length - 1);
    for (const { tokenIds, logprobs } of outputs) {
      expect(rows(logprobs!).map(({ chosen }) => chosen.id)).toEqual([...tokenIds]);
    }
    expect(new Set(texts(outputs)).size).toBe(3);
    const alone = await complete(params, 'She was');
    expect(outputs[0]).toEqual(alone);
  });
});

describe('the prefix cache', () => {
  const tokenIds = Array.from({ length: 40 }, (_, i) => 100 + i);
  const cached = async (cacheSalt?: string, params: SamplingParams = {}) => {
    const before = engine.stats().prefixCacheHits;
    const options = cacheSalt === undefined ? {} : { cacheSalt };
    const { usage } = await engine.generate({ tokenIds }, { ...base, maxTokens: 1, ...params }, options).final();
    expect(engine.stats().prefixCacheHits - before).toBe(usage.cachedTokens);
    return usage.cachedTokens;
  };

  it('is shared within a salt only', async () => {
    expect(await cached('red')).toBe(0);
    expect(await cached('blue')).toBe(0);
    expect(await cached()).toBe(0);
    expect(await cached('red')).toBe(32);
    expect(await cached()).toBe(32);
  });

  it("is not read with prefixCache 'skip', nor for promptLogprobs", async () => {
    expect(await cached('red', { prefixCache: 'skip' })).toBe(0);
    expect(await cached('red', { promptLogprobs: 0 })).toBe(0);
  });
});
