/**
 * Where the time of the engine's steps goes.
 *
 * @module
 */
import type { EngineStats } from '../../types/outputs';

/** Means over steps, in microseconds; parts are those of rank 0, which samples. */
export interface StepTime {
  /** How many steps. */
  readonly steps: number;
  /** A step altogether, from scheduling to the text. */
  readonly total: number;
  /** In the model's and the sampler's operations. */
  readonly ops: number;
  /** In collectives, waiting included. */
  readonly communication: number;
  /** Waiting for a GPU; on CPU 0. */
  readonly wait: number;
  /** What is left: the engine's own. */
  readonly overhead: number;
  /** Of a GPU, between the end of a step and the beginning of the next, which is no part of the total; on CPU 0. */
  readonly idle: number;
}

/** Of the steps between two looks at an engine. */
export function stepTimeBetween(before: EngineStats, after: EngineStats): StepTime {
  const steps = after.steps - before.steps;
  const mean = (secondsOf: (stats: EngineStats) => number): number =>
    (1e6 * (secondsOf(after) - secondsOf(before))) / steps;
  const total = mean((stats) => stats.stepSeconds);
  const ops = mean((stats) => stats.ranks[0]!.opsSeconds);
  const communication = mean((stats) => stats.ranks[0]!.communicationSeconds);
  const wait = mean((stats) => stats.ranks[0]!.deviceWaitSeconds);
  const idle = mean((stats) => stats.ranks[0]!.deviceIdleSeconds);
  return { steps, total, ops, communication, wait, overhead: total - ops - communication - wait, idle };
}
