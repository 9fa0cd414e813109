import { measureLatency } from '../../lib/bench/latency';
import { measureStartup } from '../../lib/bench/startup';
import { median, percentile } from '../../lib/bench/statistics';
import { measureThroughput, type ThroughputWorkload } from '../../lib/bench/throughput';
import type { MeasuredEngine } from '../../lib/bench/timed-request';
import type { EngineStats, GenerationStream, SamplingParams } from '../../types/index';

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

const sleep = async (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Of a step of each fake engine, in seconds: 20 µs are neither ops nor collectives. */
const STEP = { step: 0.001, ops: 0.0007, communication: 0.00028 };

/** An engine whose i-th request gets `count` tokens at each of the moments `of(i)`, in milliseconds, by a step each. */
class FakeEngine implements MeasuredEngine {
  readonly requests: { promptTokens: number; maxTokens: number }[] = [];
  numOpen = 0;
  mostOpen = 0;
  numPreemptions = 3; // of an earlier measurement, as all here
  private promptTokens = 11;
  private generatedTokens = 7;
  private steps = 5;

  constructor(private readonly of: (i: number, maxTokens: number) => { moments: number[]; count?: number }) {}

  generate(prompt: unknown, { maxTokens = 0 }: SamplingParams = {}): GenerationStream {
    const promptTokens = (prompt as { tokenIds: number[] }).tokenIds.length;
    this.requests.push({ promptTokens, maxTokens });
    return this.tokens(this.requests.length - 1, promptTokens, maxTokens) as unknown as GenerationStream;
  }

  stats(): EngineStats {
    const { promptTokens, generatedTokens, steps, numPreemptions } = this;
    const rank = {
      weightBytes: 4000,
      opsSeconds: steps * STEP.ops,
      communicationSeconds: steps * STEP.communication,
      deviceWaitSeconds: 0,
      deviceIdleSeconds: 0,
    };
    const figures = { promptTokens, generatedTokens, steps, numPreemptions, stepSeconds: steps * STEP.step };
    return { ...figures, ranks: [rank, rank] } as unknown as EngineStats;
  }

  async close(): Promise<void> {
    await sleep(30);
  }

  private async *tokens(i: number, promptTokens: number, maxTokens: number): AsyncGenerator {
    this.mostOpen = Math.max(this.mostOpen, ++this.numOpen);
    const start = performance.now();
    const { moments, count = 1 } = this.of(i, maxTokens);
    this.promptTokens += promptTokens;
    for (const moment of moments) {
      await sleep(start + moment - performance.now());
      this.generatedTokens += count;
      ++this.steps;
      if (moment === moments.at(-1)) --this.numOpen;
      yield { tokenIds: new Int32Array(count) };
    }
  }
}

async function finished<T>(promise: Promise<T>): Promise<T> {
  await jest.runAllTimersAsync();
  return promise;
}

describe('latency', () => {
  const measure = async (times: number[][], count = 1) => {
    const engine = new FakeEngine((i) => ({ moments: times[i]!, count }));
    const workload = { promptTokens: 100, maxTokens: times[0]!.length * count, sequences: times.length };
    return finished(measureLatency(engine, workload, { kvCacheBytesPerToken: 10 }, 0));
  };

  it('counts the tokens after the first as decoded', async () => {
    expect(await measure([[1000, 1500, 2000, 3000]])).toMatchObject({ prefill_tok_s: 100, decode_tok_s: 1.5 });
  });

  it('counts no token as decoded that came before the last first one', async () => {
    const early = [500, 600, 700, 1500];
    const late = [1000, 2000, 2500, 3000];
    const figures = await measure([early, late]);
    expect(figures).toMatchObject({ prefill_tok_s: 200, decode_tok_s: 2 });
    // Those of `late` alone: `early` has one token left.
    expect(figures).toMatchObject({ ttft_ms: 750, tpot_ms_median: 500, tpot_ms_p99: 1000 });
  });

  it('shares the time before tokens that come together among them', async () => {
    const figures = await measure([[1000, 1020, 1060]], 2);
    expect(figures.tpot_ms_median).toBeCloseTo(10);
    expect(figures.tpot_ms_p99).toBeCloseTo(20);
  });

  it('tells what of a decode step is neither ops nor collectives', async () => {
    const figures = await measure([[1000, 1001, 1002, 1003]]);
    expect(figures.step_us).toBeCloseTo(1000);
    expect(figures.ops_us).toBeCloseTo(700);
    expect(figures.communication_us).toBeCloseTo(280);
    expect(figures.overhead_us).toBeCloseTo(20);
  });

  it('knows the bytes that a step reads, of all ranks and sequences, and how fast', async () => {
    const figures = await measure([
      [1000, 1001, 1002, 1003],
      [1000, 1001, 1002, 1003],
    ]);
    // Each sequence has 102 tokens half-way.
    expect(figures).toMatchObject({ weight_bytes: 8000, kv_bytes: 2040 });
    expect(figures.read_gb_s).toBeCloseTo(10_040 / 1e-3 / 1e9);
  });
});

describe('throughput', () => {
  const workload = { requests: 6, concurrency: 2, promptTokens: 100, maxTokens: 4, lengthSpread: 0, seed: 0 };
  /** A token every 100 ms, the first after 400. */
  const steady = () =>
    new FakeEngine((_, maxTokens) => ({ moments: Array.from({ length: maxTokens }, (_, i) => 400 + 100 * i) }));
  const lengths = async (changes: Partial<ThroughputWorkload>, salt = 0) => {
    const engine = steady();
    await finished(measureThroughput(engine, { ...workload, ...changes }, salt));
    return engine.requests;
  };

  it('is what all requests took and gave, over the time from first to last', async () => {
    // Three after one another, 700 ms each.
    expect(await finished(measureThroughput(steady(), workload, 0))).toMatchObject({
      duration_s: 2.1,
      prompt_tokens: 600,
      generated_tokens: 24,
      total_tok_s: 624 / 2.1,
      generated_tok_s: 24 / 2.1,
      requests_per_s: 6 / 2.1,
      ttft_ms_median: 400,
      ttft_ms_p99: 400,
      tpot_ms_median: 100,
      tpot_ms_p99: 100,
      preemptions: 0,
      steps: 24,
    });
  });

  it('sends a request when one ends, never more at once', async () => {
    const engine = steady();
    await finished(measureThroughput(engine, { ...workload, concurrency: 3 }, 0));
    expect(engine.requests).toHaveLength(6);
    expect(engine.mostOpen).toBe(3);
  });

  it('has requests of one length unless told to spread them', async () => {
    expect(await lengths({})).toEqual(Array(6).fill({ promptTokens: 100, maxTokens: 4 }));
  });

  it('spreads lengths around the average, by the seed alone', async () => {
    const spread = { requests: 200, maxTokens: 50, lengthSpread: 0.5 };
    const drawn = await lengths(spread);
    const prompts = drawn.map(({ promptTokens }) => promptTokens);
    const outputs = drawn.map(({ maxTokens }) => maxTokens);
    for (const [values, average] of [
      [prompts, 100],
      [outputs, 50],
    ] as const) {
      expect(Math.min(...values)).toBeLessThan(0.6 * average);
      expect(Math.min(...values)).toBeGreaterThanOrEqual(0.5 * average);
      expect(Math.max(...values)).toBeGreaterThan(1.4 * average);
      expect(Math.max(...values)).toBeLessThanOrEqual(1.5 * average);
    }
    expect(await lengths(spread, 7)).toEqual(drawn);
    expect(await lengths({ ...spread, seed: 1 })).not.toEqual(drawn);
  });
});

describe('start-up', () => {
  it('is timed from one beginning to the engine, to its first token, and to its end', async () => {
    const engine = new FakeEngine(() => ({ moments: [50] }));
    const open = async () => sleep(200).then(() => engine);
    expect(await finished(measureStartup(open, 16))).toEqual({ create_s: 0.2, first_token_s: 0.25, closed_s: 0.28 });
    expect(engine.requests).toEqual([{ promptTokens: 16, maxTokens: 1 }]);
  });
});

describe('statistics', () => {
  it('know the middle of values in any order', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([10, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNaN();
  });

  it('know the value that a share of all does not exceed', () => {
    const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect(percentile(hundred, 0.99)).toBe(99);
    expect(percentile(hundred, 1)).toBe(100);
    expect(percentile([5], 0.99)).toBe(5);
    expect(percentile([], 0.99)).toBeNaN();
  });
});
