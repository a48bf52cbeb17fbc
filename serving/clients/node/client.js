// Asks a server over the Open Inference Protocol (KServe v2): REST, tensors in binary.
// Nothing but what Node brings along.
//
//   const client = new Client("http://localhost:8501", "mine");
//   await client.classify([await readFile("a.jpg")], { top: 3 });
//   // [[{ label: "chair", index: 2, score: 0.97 }, ...]]

const HEADER_LENGTH = "Inference-Header-Content-Length";

export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Client {
  // url: of the REST port; version: a number or a label, or none for the newest; timeout: of a call, in ms.
  constructor(url, model, { version, timeout = 30_000, headers = {} } = {}) {
    const path = `/v2/models/${encodeURIComponent(model)}`;
    const which = version === undefined ? "" : `/versions/${encodeURIComponent(version)}`;
    this.url = url.replace(/\/+$/, "") + path + which;
    this.timeout = timeout;
    this.headers = headers;
  }

  // The best `top` classes of each picture: encoded files, as Buffers.
  async classify(pictures, { top = 5 } = {}) {
    const { scores } = await this.infer(
      [{ name: "image_bytes", datatype: "BYTES", shape: [pictures.length], data: pictures }],
      [{ name: "scores", parameters: { classification: top } }],
    );
    const found = scores.data.map((text) => {
      const [score, index, ...label] = text.toString().split(":");
      return { label: label.join(":"), index: Number(index), score: Number(score) };
    });
    const each = scores.shape[1];
    return pictures.map((_, i) => found.slice(i * each, (i + 1) * each));
  }

  // Scores of pixels: a Uint8Array of shape [N, H, W, C] -> { shape: [N, classes], data }.
  async predict(pixels, shape) {
    const image = { name: "image", datatype: "UINT8", shape, data: pixels };
    return (await this.infer([image])).scores;
  }

  // What the model takes and gives.
  async metadata() {
    return (await this.#call("")).json();
  }

  async ready() {
    const options = { headers: this.headers, signal: AbortSignal.timeout(this.timeout) };
    return (await fetch(`${this.url}/ready`, options)).ok;
  }

  // Named tensors -> named tensors; data is a typed array, of BYTES an array of Buffers.
  async infer(inputs, outputs) {
    const parts = inputs.map(({ data }) => bytesOf(data));
    const head = Buffer.from(
      JSON.stringify({
        inputs: inputs.map(({ data, ...tensor }, i) => ({
          ...tensor,
          parameters: { binary_data_size: parts[i].length },
        })),
        ...(outputs && { outputs }),
        parameters: { binary_data_output: true },
      }),
    );
    const body = Buffer.concat([head, ...parts]);
    const response = await this.#call("/infer", {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream", [HEADER_LENGTH]: `${head.length}` },
      body,
    });
    return read(response.headers, Buffer.from(await response.arrayBuffer()));
  }

  async #call(path, { headers, ...options } = {}) {
    const response = await fetch(this.url + path, {
      ...options,
      headers: { ...this.headers, ...headers },
      signal: AbortSignal.timeout(this.timeout),
    });
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({}));
    throw new ServerError(response.status, error ?? response.statusText);
  }
}

function read(headers, body) {
  let position = Number(headers.get(HEADER_LENGTH));
  const { outputs } = JSON.parse(body.subarray(0, position).toString());
  const found = {};
  for (const { name, datatype, shape, parameters } of outputs) {
    const part = body.subarray(position, (position += parameters.binary_data_size));
    found[name] = { datatype, shape, data: values(part, datatype) };
  }
  return found;
}

const KINDS = {
  BOOL: Uint8Array,
  UINT8: Uint8Array,
  UINT16: Uint16Array,
  UINT32: Uint32Array,
  UINT64: BigUint64Array,
  INT8: Int8Array,
  INT16: Int16Array,
  INT32: Int32Array,
  INT64: BigInt64Array,
  FP32: Float32Array,
  FP64: Float64Array,
};

function values(part, datatype) {
  if (datatype === "BYTES") return split(part);
  const Kind = KINDS[datatype];
  if (!Kind) throw new Error(`${datatype} has no array in JavaScript`);
  return new Kind(Uint8Array.from(part).buffer); // a copy, because a view must be aligned
}

// Strings travel one after the other, each after its length in four bytes
function strings(buffers) {
  return Buffer.concat(
    buffers.flatMap((buffer) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(buffer.length);
      return [length, buffer];
    }),
  );
}

function split(part) {
  const found = [];
  for (let start = 0; start < part.length; ) {
    const end = start + 4 + part.readUInt32LE(start);
    found.push(part.subarray(start + 4, end));
    start = end;
  }
  return found;
}

function bytesOf(data) {
  if (Array.isArray(data)) return strings(data);
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
