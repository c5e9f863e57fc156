/**
 * Compares what the page expects the server to answer with the schemas of the routes and with what the routes send.
 * This file is only compiled: it does not compile when a field has another name or type in one of the three.
 *
 * The page itself must know nothing of the server, so it declares what it reads in its own words.
 */
import type {
  Action,
  Answer,
  EventPage,
  Explanation,
  History,
  LeaseList,
  Overview,
  Refusal,
} from '../../dashboard/model.js'
import type { Actor, interventions } from '../../plugin/http/guard/access.js'
import type { httpProblem } from '../../plugin/http/schemas/common.js'
import type { event, eventsReply } from '../../plugin/http/schemas/events.js'
import type {
  explainReply,
  historyReply,
  leaseItem,
  leasesReply,
  releaseReply,
  leaseDetail as schemaOfLeaseDetail,
  term,
  transferReply,
} from '../../plugin/http/schemas/leases.js'
import type { overviewReply } from '../../plugin/http/schemas/overview.js'
import type { leaseDetail, overviewOf, problemsShown } from '../../plugin/http/snapshot/overview.js'
import type {
  eventBody,
  explanationBody,
  leaseBody,
  termBody,
} from '../../plugin/http/snapshot/presenters.js'

/** What is sent by a schema. A nullable value is sent as null. Any other value that is not required may be missing. */
type Sent<Schema> = Schema extends { readonly nullable: true } ? Value<Schema> | null : Value<Schema>

type Value<Schema> = Schema extends { readonly enum: readonly (infer Word)[] }
  ? Word
  : Schema extends { readonly type: 'string' }
    ? string
    : Schema extends { readonly type: 'integer' | 'number' }
      ? number
      : Schema extends { readonly type: 'boolean' }
        ? boolean
        : Schema extends { readonly type: 'array'; readonly items: infer Item }
          ? readonly Sent<Item>[]
          : Schema extends { readonly type: 'object'; readonly properties: infer Properties }
            ? Fields<Properties, Required<Schema>>
            : Schema extends { readonly type: 'object'; readonly additionalProperties: infer Item }
              ? Readonly<Record<string, Sent<Item>>>
              : unknown

type Required<Schema> = Schema extends { readonly required: readonly (infer Name)[] } ? Name : never

type Fields<Properties, Required> = {
  readonly [Name in keyof Properties as IsThere<Name, Properties[Name], Required> extends true
    ? Name
    : never]: Sent<Properties[Name]>
} & {
  readonly [Name in keyof Properties as IsThere<Name, Properties[Name], Required> extends true
    ? never
    : Name]?: Sent<Properties[Name]>
}

type IsThere<Name, Schema, Required> = Name extends Required
  ? true
  : Schema extends { readonly nullable: true }
    ? true
    : false

/** Compiles only where the first type fits the second. */
type Fits<Sent extends Expected, Expected> = Sent

/** What the page reads is in the schemas. */
export type Read = [
  Fits<Sent<typeof overviewReply>, Overview>,
  Fits<Sent<typeof eventsReply>, EventPage>,
  Fits<Sent<typeof explainReply>, Explanation>,
  Fits<Sent<typeof historyReply>, History>,
  Fits<Sent<typeof leasesReply>, LeaseList>,
  Fits<Sent<typeof httpProblem>, Refusal>,
  Fits<Pick<Sent<typeof releaseReply>, keyof Answer>, Answer>,
  Fits<Pick<Sent<(typeof transferReply)[202]>, 'sentence'>, Answer>,
  Fits<(typeof interventions)[number], Action>,
  Fits<Action, (typeof interventions)[number]>,
]

/** What is in the schemas is sent. */
export type Written = [
  Fits<ReturnType<typeof overviewOf>, Pick<Sent<typeof overviewReply>, keyof ReturnType<typeof overviewOf>>>,
  Fits<ReturnType<typeof problemsShown>['problems'], Sent<typeof overviewReply>['problems']>,
  Fits<ReturnType<typeof leaseBody>, Sent<typeof leaseItem>>,
  Fits<ReturnType<typeof leaseDetail>, Sent<typeof schemaOfLeaseDetail>>,
  Fits<ReturnType<typeof eventBody>, Sent<typeof event>>,
  Fits<ReturnType<typeof termBody>, Sent<typeof term>>,
  Fits<ReturnType<typeof explanationBody>, Omit<Sent<typeof explainReply>, 'now' | 'revision' | 'lease'>>,
  Fits<keyof Actor, keyof NonNullable<Sent<typeof overviewReply>['capabilities']['actor']>>,
]
