/**
 * Making checkpoints smaller.
 *
 * @module
 */

/** What quantising and pruning share. */
export interface CompressionOptions {
  /** Folder of a checkpoint in the Hugging Face layout, of float weights in safetensors. */
  model: string;
  /** Folder to make. It has its name only once it is complete; until then it is `<output>.partial-XXXXXX`. */
  output: string;
  /** Linear layers to leave as they are: whole names, or their last parts, such as `'down_proj'`. The output head always is. Defaults to none. */
  ignore?: string[] | undefined;
  /** A text file that is run through the dense model, on the CPU, to see what goes into its layers. Defaults to none. */
  calibration?: string | undefined;
  /** A text file whose loss is measured before and after. Defaults to `calibration`. */
  evaluation?: string | undefined;
  /** Tokens of each sequence that the texts are cut into, at least 2 and less than the model's length. Defaults to `512`, or the most that the model allows if that is less. */
  sequenceLength?: number | undefined;
  /** Tokens of each text that are used, from its beginning. Defaults to `65536`. */
  maxTokens?: number | undefined;
  /** Bytes of memory that calibration aims for: with less, the text is run through the model more often. Defaults to half of what is available. */
  memoryBytes?: number | undefined;
  /** Compute threads. Defaults to the processors available. */
  threads?: number | undefined;
  /** Told how far the work is, as a fraction; measuring the loss comes on top. */
  onProgress?: ((fraction: number) => void) | undefined;
  /** Ends the work: the promise rejects with the signal's reason, and nothing stays behind. A new checkpoint that is complete stays; then only its loss is not measured. */
  signal?: AbortSignal | undefined;
}

/** How to quantise. */
export interface QuantizeOptions extends CompressionOptions {
  /** `'int8'`: weights of 8 bits, a scale an output. `'w8a8'`: the same, and inputs of 8 bits, a scale a token, found while computing. */
  scheme: 'int8' | 'w8a8';
  /** How much of the size of inputs SmoothQuant moves into weights, from 0 (off) to 1; needs `calibration`, and scheme `'w8a8'`. Defaults to `0.5` with both, else to `0`. */
  smooth?: number | undefined;
}

/** How to prune: two of every four neighbouring weights become zero. */
export interface PruneOptions extends CompressionOptions {
  /** Which go: the smallest (`'magnitude'`), the smallest times the size of their inputs (`'wanda'`), or those that the others can best make up for, which are changed to do so (`'sparsegpt'`). The last two need `calibration`. */
  method: 'magnitude' | 'wanda' | 'sparsegpt';
  /** `'compressed'` stores what is left and a mask; `'dense'` stores zeros, for programs that know nothing of 2:4. Defaults to `'compressed'`. */
  format?: 'compressed' | 'dense' | undefined;
}

/** What became of a checkpoint. */
export interface CompressionResult {
  /** Linear layers that were changed. */
  numMatrices: number;
  /** Linear layers that are stored 2:4. */
  numSparse: number;
  /** How often the calibration text ran through the model. */
  numPasses: number;
  /** Tokens of it. */
  calibrationTokens: number;
  /** Bytes of all weights, before. */
  sourceBytes: number;
  /** Bytes of all weights, after. */
  outputBytes: number;
  /** Bytes of memory that the work came to hold at most, beside a few MiB; measuring the loss takes what an engine takes. */
  memoryBytes: number;
  /** Names of unfinished folders of killed runs, which were removed. */
  removed: string[];
  /** The loss, where a text was given. It is measured once the new checkpoint is there. */
  loss?: CompressionLoss;
}

/** Mean loss on a text, in nats a token. */
export interface CompressionLoss {
  /** Tokens that were predicted. */
  numTokens: number;
  /** Of the checkpoint as it was. */
  before?: number;
  /** Of the new one. */
  after?: number;
  /** Why one of them could not be measured and is absent. */
  error?: string;
}
