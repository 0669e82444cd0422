/** Definitions of Warren's own kinds, with schemas: what istiod-lite could make nothing of, the API server refuses at once. */

const GATEWAY_API = 'gateway.networking.k8s.io';

const text = (description: string, more: object = {}): object => ({ type: 'string', description, ...more });
const whole = (description: string, minimum: number, maximum: number): object => ({
  type: 'integer',
  format: 'int64',
  minimum,
  maximum,
  description,
});
const list = (items: object, description: string, maxItems: number, more: object = {}): object => ({
  type: 'array',
  maxItems,
  description,
  items,
  ...more,
});

// As istiod-lite/model/rate-limit-policy.ts reads them.
const ATTRIBUTE = {
  type: 'string',
  maxLength: 256,
  pattern:
    '^(source\\.(principal|namespace|serviceAccount|ip)|remote\\.ip|destination\\.port|request\\.(path|method|host)|request\\.(headers|query)\\[[^\\]]+\\]|request\\.auth\\.(principal|audiences|presenter)|request\\.auth\\.claims(\\[[^\\]]+\\])+)$',
};

const values = (description: string): object => list({ type: 'string', minLength: 1, maxLength: 1024 }, description, 64);

const limit = {
  type: 'object',
  required: ['requests', 'per'],
  properties: {
    name: text('Unique within the policy; callers are told it in the fields RateLimit-Policy and RateLimit. limit-N where it is missing.', {
      minLength: 1,
      maxLength: 63,
    }),
    requests: whole('So many requests in each period, evenly.', 1, 1_000_000_000),
    per: text('The period: 1s, 1m, 1h.', { pattern: '^([0-9]+(\\.[0-9]+)?(h|ms|m|s))+$', maxLength: 32 }),
    burst: whole('So many at once; as many as requests where it is missing.', 1, 1_000_000_000),
    by: list(ATTRIBUTE, 'What buckets are kept by: each value has one of its own. One bucket for everybody where it is missing.', 8),
    when: list(
      {
        type: 'object',
        required: ['key'],
        properties: {
          key: {
            ...ATTRIBUTE,
            description: 'As in by, and destination.ip.',
            pattern: ATTRIBUTE.pattern.replace('remote\\.ip', '(remote|destination)\\.ip'),
          },
          values: values('One of them must hold; * at an end stands for anything.'),
          notValues: values('None of them may hold.'),
        },
      },
      'Requests that are counted: all conditions must hold. All requests where it is missing.',
      16,
    ),
    fairBetween: list(
      ATTRIBUTE,
      'Whoever differs in these gets an even share of the bucket where it is short; what others leave is for anybody.',
      4,
    ),
  },
};

const condition = {
  type: 'object',
  required: ['type', 'status', 'reason', 'message', 'lastTransitionTime'],
  properties: {
    type: { type: 'string' },
    status: { type: 'string', enum: ['True', 'False', 'Unknown'] },
    observedGeneration: { type: 'integer', format: 'int64' },
    lastTransitionTime: { type: 'string', format: 'date-time' },
    reason: { type: 'string' },
    message: { type: 'string', maxLength: 32_768 },
  },
};

const reference = {
  group: { type: 'string', maxLength: 253 },
  kind: { type: 'string', minLength: 1, maxLength: 63 },
  name: { type: 'string', minLength: 1, maxLength: 253 },
  sectionName: { type: 'string', minLength: 1, maxLength: 253 },
};

export function ownDefinitions(): object[] {
  return [
    {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: {
        name: 'ratelimitpolicies.warren.dev',
        labels: { 'app.kubernetes.io/part-of': 'warren', 'warren.dev/definition': 'warren', 'gateway.networking.k8s.io/policy': 'Direct' },
        annotations: { 'helm.sh/resource-policy': 'keep' },
      },
      spec: {
        group: 'warren.dev',
        names: {
          kind: 'RateLimitPolicy',
          listKind: 'RateLimitPolicyList',
          plural: 'ratelimitpolicies',
          singular: 'ratelimitpolicy',
          shortNames: ['rlp'],
          categories: ['warren'],
        },
        scope: 'Namespaced',
        versions: [
          {
            name: 'v1alpha1',
            served: true,
            storage: true,
            subresources: { status: {} },
            additionalPrinterColumns: [
              { name: 'Target', type: 'string', jsonPath: '.spec.targetRefs[*].name', description: 'Whose requests are counted' },
              {
                name: 'Accepted',
                type: 'string',
                jsonPath: '.status.ancestors[*].conditions[?(@.type=="Accepted")].status',
                description: 'Whether it is enforced, for each target',
              },
              { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp', description: 'Time since it was created' },
            ],
            schema: {
              openAPIV3Schema: {
                type: 'object',
                description: 'Limits the rate of requests at waypoints: token buckets, of which each replica of a waypoint has its own.',
                required: ['spec'],
                properties: {
                  spec: {
                    type: 'object',
                    required: ['targetRefs', 'limits'],
                    properties: {
                      targetRefs: list(
                        {
                          type: 'object',
                          required: ['group', 'kind', 'name'],
                          properties: reference,
                          'x-kubernetes-validations': [
                            {
                              rule: `(self.group == '' && self.kind == 'Service') || (self.group == 'networking.istio.io' && self.kind == 'ServiceEntry') || (self.group == '${GATEWAY_API}' && self.kind in ['Gateway', 'GatewayClass', 'HTTPRoute', 'GRPCRoute'])`,
                              message: 'a target is a Service, ServiceEntry, Gateway, GatewayClass, HTTPRoute or GRPCRoute',
                            },
                            {
                              rule: "!has(self.sectionName) || self.kind in ['HTTPRoute', 'GRPCRoute']",
                              message: 'only routes have sections that can be targets: their rules',
                            },
                          ],
                        },
                        "Whose requests are counted, in the policy's own namespace; sectionName is a rule of a route.",
                        16,
                        { minItems: 1 },
                      ),
                      limits: list(limit, 'A request must have room in all of them.', 16, { minItems: 1 }),
                    },
                  },
                  status: {
                    type: 'object',
                    properties: {
                      ancestors: list(
                        {
                          type: 'object',
                          required: ['ancestorRef', 'controllerName'],
                          properties: {
                            ancestorRef: {
                              type: 'object',
                              required: ['name'],
                              properties: { ...reference, namespace: { type: 'string' } },
                            },
                            controllerName: { type: 'string' },
                            conditions: list(condition, 'Accepted: whether the policy is enforced at this target, and why not.', 8),
                          },
                        },
                        'What became of the policy at each of its targets.',
                        16,
                        { 'x-kubernetes-list-type': 'atomic' },
                      ),
                    },
                  },
                },
              },
            },
          },
        ],
      },
    },
  ];
}
