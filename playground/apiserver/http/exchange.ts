/** One request and its answer: bodies within a limit, JSON and YAML in, JSON out, errors as `Status` objects. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import yaml from 'js-yaml';
import { ApiError } from '../api-error.ts';
import type { UserInfo } from '../identity/tokens.ts';
import { isObject, type JsonObject } from '../json.ts';
import type { SchemaNode } from '../schemas/schema.ts';
import { decodeProtobuf } from './protobuf.ts';

const MAX_BODY_BYTES = 3 << 20;

export type SchemaLookup = (apiVersion: string, kind: string) => SchemaNode | undefined;

export interface ExchangeParts {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly user: UserInfo;
  /** For bodies in protobuf, whose structure is not in their bytes. */
  readonly schemaOf: SchemaLookup;
}

export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly user: UserInfo;
  readonly #schemaOf: SchemaLookup;
  readonly #warnings: string[] = [];

  constructor({ request, response, url, user, schemaOf }: ExchangeParts) {
    this.request = request;
    this.response = response;
    this.url = url;
    this.user = user;
    this.#schemaOf = schemaOf;
  }

  get method(): string {
    return this.request.method ?? 'GET';
  }

  get query(): URLSearchParams {
    return this.url.searchParams;
  }

  get accept(): string {
    return this.request.headers.accept ?? '';
  }

  /** A boolean of the query: `watch`, `watch=1`, `watch=true`. */
  flag(name: string): boolean {
    const value = this.query.get(name);
    return value !== null && value !== 'false' && value !== '0';
  }

  /** @throws {ApiError} BadRequest */
  count(name: string): number | undefined {
    const value = this.query.get(name);
    if (value === null || value === '') return undefined;
    if (!/^\d{1,15}$/.test(value)) throw ApiError.badRequest(`invalid value "${value}" for ${name}: expected a whole number`);
    return Number(value);
  }

  /** kubectl prints each of them; clients see `Warning: 299` headers. */
  warn(text: string): void {
    if (this.#warnings.length < 20) this.#warnings.push(`299 - "${text.replace(/["\\]/g, '\\$&').replace(/[^\x20-\x7e]/g, '?')}"`);
  }

  async bodyBytes(): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of this.request) {
      const bytes = chunk as Buffer;
      size += bytes.length;
      if (size > MAX_BODY_BYTES) throw new ApiError(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${MAX_BODY_BYTES}`);
      chunks.push(bytes);
    }
    return Buffer.concat(chunks);
  }

  /** The body's value, in JSON, YAML or Kubernetes protobuf as its content type says. @throws {ApiError} BadRequest, UnsupportedMediaType */
  async body(): Promise<unknown> {
    const type = (this.request.headers['content-type'] ?? 'application/json').split(';')[0]?.trim() ?? '';
    const bytes = await this.bodyBytes();
    if (bytes.length === 0) return undefined;
    if (type === 'application/vnd.kubernetes.protobuf') return decodeProtobuf(bytes, this.#schemaOf);
    const text = bytes.toString('utf8');
    try {
      return type.includes('yaml') ? yaml.load(text, { schema: yaml.JSON_SCHEMA }) : JSON.parse(text);
    } catch (error) {
      throw ApiError.badRequest(
        `the body could not be read as ${type}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`,
      );
    }
  }

  async bodyObject(): Promise<JsonObject> {
    const value = await this.body();
    if (value === undefined) return {};
    if (!isObject(value)) throw ApiError.badRequest('the body is no object');
    return value;
  }

  json(code: number, value: object | string): void {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    this.#head(code, 'application/json');
    this.response.end(text);
  }

  text(code: number, text: string): void {
    this.#head(code, 'text/plain; charset=utf-8');
    this.response.end(text);
  }

  /** Begins an answer that is written piece by piece. */
  stream(contentType: string): void {
    this.#head(200, contentType);
    this.response.flushHeaders();
  }

  fail(error: unknown): void {
    const known =
      error instanceof ApiError ? error : new ApiError(500, 'InternalError', error instanceof Error ? error.message : String(error));
    if (this.response.headersSent) {
      this.response.destroy();
      return;
    }
    this.json(known.code, known.status());
  }

  #head(code: number, contentType: string): void {
    const headers: Record<string, string | string[]> = { 'content-type': contentType, 'cache-control': 'no-cache, private' };
    if (this.#warnings.length > 0) headers.warning = this.#warnings;
    this.response.writeHead(code, headers);
  }
}
