/** Stores in memory with one fault each, which the courses must find. */
import type { Change, LeaseFilter, LockedLease, Store } from '../../plugin/core/store.js'
import type { MemoryDatabase, MemoryStoreOptions } from '../../plugin/testing/memory-store.js'
import { overriding, inChanges as wrappingChanges } from '../support/wrapped-store.js'

type Open = (database: MemoryDatabase, options: MemoryStoreOptions) => Store

export const faults: Readonly<Record<string, Open>> = {
  'a heartbeat counts though its number is the stored one': inVerbs((store) => ({
    heartbeat: async (node, beat) => (await store.heartbeat(node, beat)) ?? store.heartbeat(node, beat + 1),
  })),
  'a node is buried whatever its beat': inChanges((change) => ({ bury: (id) => change.bury(id) })),
  'a session makes changes under numbers it has used': inVerbs((store) => ({
    change: (session, work) =>
      store.change(session && { ...session, operation: Number.MAX_SAFE_INTEGER }, work),
  })),
  'names that differ in case are one name': inVerbs((store) => ({
    view: (node) => store.view(node.toLowerCase()),
  })),
  'blanks at the end of a name do not count': inVerbs((store) => ({
    news: (node) => store.news(node.trimEnd()),
  })),
  'what is null comes back as an empty text': inVerbs((store) => ({
    async look() {
      const look = await store.look()
      return { ...look, leases: look.leases.map((lease) => ({ ...lease, target: lease.target ?? '' })) }
    },
  })),
  'a cool-down loses its node': inChanges((change) => ({
    saveLeases: (rows) => change.saveLeases(rows.map((row) => ({ ...row, cooldownNode: null }))),
  })),
  'events of other types come along': inVerbs((store) => ({
    events: ({ types: _, ...query }) => store.events(query),
  })),
  'what a change has read it does not read again': inChanges((change) => {
    const known = new Map<string, Promise<LockedLease[]>>()
    return {
      leases(filter: LeaseFilter) {
        const wanted = JSON.stringify(filter)
        const found = known.get(wanted) ?? change.leases(filter)
        known.set(wanted, found)
        return found
      },
    }
  }),
  'two namespaces are one': (database, options) => database.open({ ...options, namespace: 'one for all' }),
  'times are those of the host': inChanges(() => ({ nowMs: Date.now() })),
}

function inVerbs(ownOf: (store: Store) => Partial<Store>): Open {
  return (database, options) => {
    const store = database.open(options)
    return overriding(store, ownOf(store))
  }
}

function inChanges(ownOf: (change: Change) => Partial<Change>): Open {
  const wrap = wrappingChanges((change) => overriding(change, ownOf(change)))
  return (database, options) => wrap(database.open(options))
}
