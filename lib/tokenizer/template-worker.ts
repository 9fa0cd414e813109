/**
 * Renders a Jinja template in a thread of its own, within a time and memory budget: a template comes with a checkpoint,
 * may loop for ever, and must hold up neither the event loop nor the process.
 *
 * @module
 */
import { Worker } from 'node:worker_threads';

/** How a rendering went wrong: the template itself refused its input, or is broken. */
export class TemplateFault extends Error {
  constructor(
    /** Whether it is sound, and failed on these messages, as `raise_exception` does. */
    readonly raised: boolean,
    message: string,
  ) {
    super(message);
  }
}

type Reply = { text: string } | { raised: boolean; message: string };

interface Job {
  context: Record<string, unknown>;
  resolve: (text: string) => void;
  reject: (error: Error) => void;
}

const HEAP_LIMIT_MB = 64;

// Plain JavaScript, so that it runs from dist/ and from lib/ alike.
const SOURCE = `
const { parentPort, workerData } = require('node:worker_threads');
const { Template } = require(workerData.jinja);

let template;
parentPort.on('message', (context) => {
  let reply;
  try {
    template ??= new Template(workerData.template);
    reply = { text: template.render(context) };
  } catch (error) {
    // A template that parses and then fails, by raise_exception or otherwise, fails on what it was given.
    reply = { raised: template !== undefined, message: String(error?.message ?? error) };
  }
  parentPort.postMessage(reply);
});
parentPort.postMessage('ready');
`;

/** One template and the thread that renders it, started at the first rendering and kept for the next. */
export class TemplateWorker {
  readonly #template: string;
  readonly #budgetMs: number;
  readonly #waiting: Job[] = [];
  #worker: Worker | null = null;
  #ready = false;
  #current: Job | null = null;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param budgetMs - What one rendering may take. */
  constructor(template: string, budgetMs: number) {
    this.#template = template;
    this.#budgetMs = budgetMs;
  }

  /** Renders with these variables, which are copied. Rejects with {@link TemplateFault}. */
  render(context: Record<string, unknown>): Promise<string> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new TemplateFault(false, 'closed'));
      this.#waiting.push({ context, resolve, reject });
      this.#advance();
    });
  }

  /** Ends the thread; renderings under way reject. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    const worker = this.#worker;
    const jobs = [this.#current, ...this.#waiting.splice(0)];
    this.#forget();
    for (const job of jobs) job?.reject(new TemplateFault(false, 'closed'));
    await worker?.terminate();
  }

  #advance(): void {
    if (this.#current || this.#waiting.length === 0) return;
    this.#worker ??= this.#start();
    this.#worker.ref();
    this.#current = this.#waiting.shift()!;
    if (this.#ready) this.#send();
  }

  #start(): Worker {
    const worker = new Worker(SOURCE, {
      eval: true,
      workerData: { jinja: require.resolve('@huggingface/jinja'), template: this.#template },
      resourceLimits: { maxOldGenerationSizeMb: HEAP_LIMIT_MB },
      // Nothing of the host program's: neither its environment nor its loaders.
      env: {},
      execArgv: [],
    });
    worker.on('message', (message: Reply | 'ready') => {
      if (worker !== this.#worker) return;
      if (message === 'ready') {
        this.#ready = true;
        this.#send();
      } else if ('text' in message) {
        this.#settle((job) => job.resolve(message.text));
      } else {
        this.#settle((job) => job.reject(new TemplateFault(message.raised, message.message)));
      }
    });
    worker.on('error', (error) => {
      if (worker === this.#worker) this.#fail(error.message);
    });
    return worker;
  }

  /** The clock starts when the thread is ready: how long it takes to start is not the template's fault. */
  #send(): void {
    if (!this.#current) return;
    this.#timer = setTimeout(() => this.#fail(`it took longer than ${this.#budgetMs} ms`), this.#budgetMs);
    this.#worker!.postMessage(this.#current.context);
  }

  /** Ends the thread together with its rendering; the next rendering gets a new one. */
  #fail(message: string): void {
    const [worker, job] = [this.#worker, this.#current];
    this.#forget();
    void worker?.terminate();
    job?.reject(new TemplateFault(false, message));
    this.#advance();
  }

  #forget(): void {
    clearTimeout(this.#timer);
    this.#worker = null;
    this.#current = null;
    this.#ready = false;
  }

  #settle(report: (job: Job) => void): void {
    clearTimeout(this.#timer);
    const job = this.#current!;
    this.#current = null;
    // An idle thread keeps no process alive.
    this.#worker!.unref();
    report(job);
    this.#advance();
  }
}
