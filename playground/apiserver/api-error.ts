/**
 * What the API server answers when it refuses: a `Status` object whose reason, message and details are what kubectl prints and clients
 * branch on. Wording follows Kubernetes where programs are known to compare it.
 */

export interface FieldCause {
  /** Path of the field, such as `spec.containers[0].image`. */
  readonly field: string;
  readonly reason:
    | 'FieldValueInvalid'
    | 'FieldValueRequired'
    | 'FieldValueNotSupported'
    | 'FieldValueForbidden'
    | 'FieldValueDuplicate'
    | 'FieldValueTypeInvalid'
    | 'FieldManagerConflict';
  readonly message: string;
}

export interface ResourceName {
  readonly group: string;
  readonly plural: string;
  readonly kind: string;
}

interface StatusDetails {
  name?: string;
  group?: string;
  kind?: string;
  causes?: { reason: string; message: string; field?: string }[];
  retryAfterSeconds?: number;
}

export class ApiError extends Error {
  readonly code: number;
  readonly reason: string;
  readonly details: StatusDetails | undefined;

  constructor(code: number, reason: string, message: string, details?: StatusDetails) {
    super(message);
    this.name = 'ApiError';
    this.code = code;
    this.reason = reason;
    this.details = details;
  }

  /** The body of the answer. */
  status(): Record<string, unknown> {
    const { code, reason, message, details } = this;
    return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, ...(details ? { details } : {}), code };
  }

  static badRequest(message: string): ApiError {
    return new ApiError(400, 'BadRequest', message);
  }

  static notFound(type: ResourceName, name: string): ApiError {
    return new ApiError(404, 'NotFound', `${qualified(type)} "${name}" not found`, details(type.plural, type, name));
  }

  /** For a path that no resource is served at. */
  static noSuchPath(): ApiError {
    return new ApiError(404, 'NotFound', 'the server could not find the requested resource', {});
  }

  static alreadyExists(type: ResourceName, name: string): ApiError {
    return new ApiError(409, 'AlreadyExists', `${qualified(type)} "${name}" already exists`, details(type.plural, type, name));
  }

  static conflict(type: ResourceName, name: string, why: string): ApiError {
    const message = `Operation cannot be fulfilled on ${qualified(type)} "${name}": ${why}`;
    return new ApiError(409, 'Conflict', message, details(type.plural, type, name));
  }

  static staleVersion(type: ResourceName, name: string): ApiError {
    return ApiError.conflict(type, name, 'the object has been modified; please apply your changes to the latest version and try again');
  }

  static forbidden(type: ResourceName, name: string, why: string): ApiError {
    return new ApiError(403, 'Forbidden', `${qualified(type)} "${name}" is forbidden: ${why}`, details(type.plural, type, name));
  }

  static invalid(type: ResourceName, name: string, causes: readonly FieldCause[]): ApiError {
    const texts = causes.map(({ field, message }) => `${field}: ${message}`);
    const list = texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`;
    const kind = type.group ? `${type.kind}.${type.group}` : type.kind;
    return new ApiError(422, 'Invalid', `${kind} "${name}" is invalid: ${list}`, {
      ...details(type.kind, type, name),
      causes: causes.map(({ field, reason, message }) => ({ reason, message, field })),
    });
  }

  static expired(oldest: number, asked: number): ApiError {
    return new ApiError(410, 'Expired', `too old resource version: ${asked} (${oldest})`);
  }

  static methodNotAllowed(): ApiError {
    return new ApiError(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource', {});
  }

  static unauthorized(): ApiError {
    return new ApiError(401, 'Unauthorized', 'Unauthorized');
  }
}

const qualified = ({ plural, group }: ResourceName): string => (group ? `${plural}.${group}` : plural);

const details = (kind: string, { group }: ResourceName, name: string): StatusDetails => ({ name, ...(group ? { group } : {}), kind });
