// Classifies pictures by a packed model on the device itself: the runner of ../runner.h as
// WebAssembly. No dependencies.
//
//     const model = await load(await (await fetch("model.packed")).arrayBuffer());
//     const { best } = model.classify(context.getImageData(0, 0, width, height));

const WASM = new URL("striate.wasm", import.meta.url);

/** A model from the bytes of model.packed; an Error says in one line why a file is refused. */
export async function load(bytes, wasm = WASM) {
  const { instance } = await WebAssembly.instantiate(await (await fetch(wasm)).arrayBuffer(), {
    wasi_snapshot_preview1: { environ_get: () => 0, environ_sizes_get, proc_exit: stop },
  });
  const c = instance.exports;
  const numbers = () => new DataView(c.memory.buffer);
  function environ_sizes_get(count, size) { // there are no environment variables
    numbers().setUint32(count, 0, true);
    numbers().setUint32(size, 0, true);
    return 0;
  }
  c._initialize();
  return new Model(c, numbers, new Uint8Array(bytes));
}

function stop() {
  throw new Error("memory is short");
}

class Model {
  constructor(c, numbers, file) {
    this.c = c;
    this.bytes = file.length;
    const place = this.copy(file), refusal = c.malloc(8);
    this.model = c.striate_model_new(place, file.length, 0, refusal);
    const operation = numbers().getInt32(refusal, true);
    if (!this.model) {
      const where = operation < 0 ? "" : `operation ${operation}: `;
      throw new Error(where + this.text(numbers().getUint32(refusal + 4, true)));
    }
    const facts = c.malloc(40);
    c.striate_model_facts(this.model, facts);
    [this.height, this.width, this.channels, this.classes] =
      [0, 4, 8, 12].map((at) => numbers().getInt32(facts + at, true));
    this.kernel = this.text(numbers().getUint32(facts + 36, true));
    this.labels = Array.from({ length: this.classes }, (_, i) =>
      this.text(c.striate_model_label(this.model, i)));
    this.arena = c.malloc(numbers().getUint32(facts + 32, true) + 64 + 63 & ~63);
    this.image = c.malloc(this.height * this.width * this.channels);
    this.scores = c.malloc(4 * this.classes);
    if (!this.arena || !this.image || !this.scores) stop();
  }

  /** Bytes copied into the module's memory; the caller frees them. */
  copy(bytes) {
    const place = this.c.malloc(bytes.length);
    if (!place) stop();
    new Uint8Array(this.c.memory.buffer).set(bytes, place);
    return place;
  }

  text(place) {
    const all = new Uint8Array(this.c.memory.buffer);
    return new TextDecoder().decode(all.slice(place, all.indexOf(0, place)));
  }

  /** {scores, best, milliseconds} of an ImageData of any size; what is transparent shows the model's
   *  background. best: {label, score}, highest first; milliseconds: of the net alone. */
  classify(picture) {
    const numbers = 4 * picture.width * picture.height;
    if (picture.data.length !== numbers)
      throw new Error(`expected RGBA, ${numbers} numbers, got ${picture.data.length}`);
    const { c } = this, pixels = this.copy(picture.data);
    const failed = c.striate_picture(
      this.model, pixels, picture.height, picture.width, 4, this.image);
    c.free(pixels);
    if (failed) throw new Error("the picture is too large");
    const run = () =>
      c.striate_model_run(this.model, 1, this.image, this.scores, this.arena + 63 & ~63);
    run(); // browsers compile what runs for the second time better
    const start = performance.now();
    run();
    const milliseconds = performance.now() - start;
    const scores = new Float32Array(c.memory.buffer, this.scores, this.classes).slice();
    const best = this.labels.map((label, i) => ({ label, score: scores[i] }))
      .sort((one, other) => other.score - one.score);
    return { scores, best, milliseconds };
  }
}
