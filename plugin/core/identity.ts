/**
 * The identity of this node: a name for people, and the cluster it belongs to.
 *
 * Two live processes may have one name; sessions tell them apart. The cluster matters more: it decides with which nodes
 * this one competes, so anything that was asked for and is missing is an error and never a silent default.
 */
import { hostname } from 'node:os'
import { CoordinationError } from './errors.js'
import { checkName, globalPrefix, shown } from './names.js'

/** The name of a node and of its cluster. */
export interface Identity {
  readonly node: string
  readonly cluster: string
}

/** Values (missing ones come from the environment), or a function that returns both. */
export type IdentitySource = Partial<Identity> | (() => Identity | Promise<Identity>)

type Environment = Readonly<Record<string, string | undefined>>

/**
 * Returns the identity that a source gives, checked. What the source leaves out comes from the environment: the node
 * from `HOSTNAME`, else `COMPUTERNAME`, else the machine's host name; the cluster from `CLUSTER_NAME`, else
 * `KUBERNETES_CLUSTER`, else `default`. Empty variables count as missing there.
 *
 * @throws CoordinationError `WCO_NAME` for an unusable name, `WCO_OPTIONS` for anything else that is wrong; an error of
 *   the function is passed on unchanged.
 */
export async function resolveIdentity(
  source: IdentitySource | undefined,
  environment: Environment = process.env,
): Promise<Identity> {
  if (typeof source === 'function') {
    const { node, cluster } = asObject(await source())
    return checked(givenNode(node), givenCluster(cluster))
  }
  const given = asObject(source ?? {})
  return checked(
    'node' in given ? defined(givenNode(given.node)) : defaultNode(environment),
    'cluster' in given ? defined(givenCluster(given.cluster)) : defaultCluster(environment),
  )
}

/**
 * Returns a source that reads environment variables when it is called. A variable named here must be set and not empty;
 * what is not named here comes from the variables of {@link resolveIdentity}.
 *
 * @example identity: identityFromEnvironment({ node: 'MY_NODE_ID', cluster: 'DEPLOYMENT_GROUP' })
 */
export function identityFromEnvironment(names: { node?: string; cluster?: string } = {}): () => Identity {
  return () => {
    const { node, cluster } = onlyKnown(names)
    return checked(
      node === undefined ? defaultNode(process.env) : requiredVariable(node),
      cluster === undefined ? defaultCluster(process.env) : requiredVariable(cluster),
    )
  }
}

/** A name that has not been checked yet, and where it came from. */
interface Found {
  readonly what: string
  readonly name: unknown
}

function checked(node: Found, cluster: Found): Identity {
  return Object.freeze({
    node: checkName(node.what, node.name),
    cluster: checkCluster(cluster.what, cluster.name),
  })
}

/**
 * Returns the name of a cluster if it can be used. None can be called `global`, in any spelling, because some databases
 * compare keys without regard to case.
 *
 * @throws CoordinationError `WCO_NAME`
 */
export function checkCluster(what: string, name: unknown): string {
  const cluster = checkName(what, name)
  if (cluster.toLowerCase() !== globalPrefix) return cluster
  throw new CoordinationError(
    'WCO_NAME',
    `${what}: expected another name than ${shown(cluster)}, which stands for the scope of all clusters.`,
  )
}

function givenNode(name: unknown): Found {
  return { what: 'identity.node', name }
}

function givenCluster(name: unknown): Found {
  return { what: 'identity.cluster', name }
}

/** What is given as undefined was asked for and is missing, as when a variable is not set. */
function defined(given: Found): Found {
  if (given.name !== undefined) return given
  throw new CoordinationError(
    'WCO_NAME',
    `${given.what}: expected a name, got undefined: leave it out for the default, or use identityFromEnvironment().`,
  )
}

function defaultNode(environment: Environment): Found {
  return (
    firstVariable(environment, 'HOSTNAME', 'COMPUTERNAME') ?? {
      what: "The node's name, taken from the machine's host name",
      name: hostname(),
    }
  )
}

function defaultCluster(environment: Environment): Found {
  return (
    firstVariable(environment, 'CLUSTER_NAME', 'KUBERNETES_CLUSTER') ?? {
      what: "The cluster's name",
      name: 'default',
    }
  )
}

function firstVariable(environment: Environment, ...variables: readonly string[]): Found | undefined {
  const variable = variables.find((name) => hasText(environment[name]))
  return variable === undefined ? undefined : fromVariable(environment, variable)
}

function requiredVariable(variable: string): Found {
  if (hasText(process.env[variable])) return fromVariable(process.env, variable)
  throw new CoordinationError(
    'WCO_OPTIONS',
    `identity: expected the environment variable ${shown(variable)} to be set, got ${shown(process.env[variable])}.`,
  )
}

function fromVariable(environment: Environment, variable: string): Found {
  return { what: `The environment variable ${shown(variable)}`, name: environment[variable] }
}

function hasText(value: unknown): boolean {
  return typeof value === 'string' && value !== ''
}

/** For callers that do not compile against the types. A misspelt `cluster` would put the node into another one. */
function asObject(given: unknown): { readonly node?: unknown; readonly cluster?: unknown } {
  if (typeof given === 'object' && given !== null && !Array.isArray(given)) return onlyKnown(given)
  throw new CoordinationError(
    'WCO_OPTIONS',
    `identity: expected an object with node and cluster, or a function that returns one, got ${shown(given)}.`,
  )
}

function onlyKnown<Given extends object>(given: Given): Given {
  const unknown = Object.keys(given).filter((name) => name !== 'node' && name !== 'cluster')
  if (unknown.length === 0) return given
  throw new CoordinationError(
    'WCO_OPTIONS',
    `identity: expected only node and cluster, got also ${unknown.map(shown).join(', ')}.`,
  )
}
