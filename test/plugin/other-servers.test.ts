/**
 * Makes the same visit to each server for which the documents show a way: read, release, listen to the stream, close.
 */
import 'reflect-metadata'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Controller, Get, type INestApplication, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { ExpressAdapter } from '@nestjs/platform-express'
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify'
import express from 'express'
import Fastify, { type FastifyInstance } from 'fastify'
import Koa from 'koa'
import t, { type Test } from 'tap'
import workerCoordination, { type WorkerCoordinationOptions } from '../../plugin/index.js'
import { toNodeHandler } from '../../plugin/node-handler.js'
import { mira, over, untilAborted } from '../http/application.js'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

/** A server that answers, with coordination in it. */
interface Served {
  readonly origin: string
  readonly coordination: FastifyInstance['coordination']
  /** Closes everything in the order that the documents give. */
  close(): Promise<void>
}

interface Theirs {
  readonly name: string
  serve(options: WorkerCoordinationOptions): Promise<Served>
}

class TheirController {
  theirs() {
    return { theirs: true }
  }
}

class AppModule {}

// Does what `@Controller()`, `@Get('theirs')` and `@Module({ … })` do. They are decorators of the older kind, with
// which this project is not compiled.
Controller()(TheirController)
Get('theirs')(TheirController.prototype, 'theirs', { value: TheirController.prototype.theirs })
Module({ controllers: [TheirController] })(AppModule)

const servers: readonly Theirs[] = [
  {
    name: 'node:http',
    serve: async (options) => {
      const app = await withCoordination(options)
      const handler = toNodeHandler(app)
      return listening(app, (incoming, outgoing) => {
        if (incoming.url === '/theirs') outgoing.end('{"theirs":true}')
        else handler(incoming, outgoing)
      })
    },
  },
  {
    name: 'Express',
    serve: async (options) => {
      const app = await withCoordination(options)
      const server = express()
      server.use(toNodeHandler(app))
      server.get('/theirs', (_request, response) => void response.json({ theirs: true }))
      return listening(app, server)
    },
  },
  {
    name: 'Koa',
    serve: async (options) => {
      const app = await withCoordination(options)
      const handler = toNodeHandler(app)
      const koa = new Koa()
      koa.use(async (context, next) => {
        if (!context.path.startsWith('/coordination/')) return next()
        context.respond = false
        handler(context.req, context.res)
      })
      koa.use((context) => {
        if (context.path === '/theirs') context.body = { theirs: true }
      })
      return listening(app, koa.callback())
    },
  },
  {
    name: 'Nest on Express',
    serve: async (options) => {
      const app = await withCoordination(options)
      const nest = await NestFactory.create(AppModule, new ExpressAdapter(), { logger: false })
      nest.use(toNodeHandler(app))
      const { origin, close } = await nestListening(nest)
      const closeBoth = async (): Promise<void> => {
        await app.close()
        await close()
      }
      return { origin, coordination: app.coordination, close: closeBoth }
    },
  },
  {
    name: 'Nest on Fastify',
    serve: async (options) => {
      const nest = await NestFactory.create<NestFastifyApplication>(AppModule, new FastifyAdapter(), {
        logger: false,
      })
      await nest.register(workerCoordination, options)
      const { coordination } = nest.getHttpAdapter().getInstance()
      addWorker(coordination)
      return { coordination, ...(await nestListening(nest)) }
    },
  },
]

for (const { name, serve } of servers) {
  t.test(`${name}: read, release, the stream, and a clean end`, async (t) => {
    const served = await serve(await optionsFor(t))
    let closed = false
    t.teardown(async () => {
      if (!closed) await served.close()
    })
    await visit(t, served)
    const { ended } = await streamOf(t, served)
    closed = true
    await served.close()
    t.ok(await ended, 'closing ends the streams')
    t.equal(served.coordination.state, 'closed')
    await t.rejects(fetch(`${served.origin}/theirs`), 'nobody listens any more')
  })
}

async function visit(t: Test, { origin }: Served): Promise<void> {
  t.strictSame(JSON.parse((await over(origin, { path: '/theirs' })).body), { theirs: true })
  t.equal((await over(origin, { path: '/nothing' })).status, 404)
  t.match(await over(origin, { path: '/coordination/ui/' }), { status: 200, body: '<html' })
  const status = await over(origin, { path: '/coordination/status' })
  t.equal(status.status, 200)
  t.match(JSON.parse(status.body), { nodes: [{ name: 'n1' }] })
  const token = await eventually(() => leaderToken(origin))
  const release = {
    method: 'POST',
    path: '/coordination/leases/c1:indexing/release',
    headers: { 'content-type': 'application/json', 'if-match': `"${token}"` },
    body: '{"reason":"a visit"}',
  }
  t.match(await over(origin, release), { status: 200, body: `"previousToken":${token}` }, 'a body arrives')
}

async function leaderToken(origin: string): Promise<number | undefined> {
  const leaders = JSON.parse((await over(origin, { path: '/coordination/leaders' })).body)
  return leaders['c1/indexing']?.token
}

/** Reads the stream until its first event, and returns how it ends. */
async function streamOf(t: Test, { origin }: Served): Promise<{ ended: Promise<boolean> }> {
  const { body } = await fetch(`${origin}/coordination/stream`)
  const reader = body?.pipeThrough(new TextDecoderStream()).getReader()
  t.match((await reader?.read())?.value, /event: snapshot/)
  const rest = async (): Promise<boolean> => {
    while (!(await reader?.read())?.done);
    return true
  }
  return { ended: rest() }
}

async function optionsFor(t: Test): Promise<WorkerCoordinationOptions> {
  const { url } = await useSqlite(t)
  return { database: url, identity: { node: 'n1', cluster: 'c1' }, authorize: mira }
}

async function withCoordination(options: WorkerCoordinationOptions): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(workerCoordination, options)
  addWorker(app.coordination)
  return app
}

function addWorker(coordination: FastifyInstance['coordination']): void {
  coordination.worker({ name: 'indexing', kind: 'single', scope: 'cluster', run: untilAborted })
}

async function listening(app: FastifyInstance, listener: RequestListener): Promise<Served> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = async (): Promise<void> => {
    await app.close()
    server.close()
    await once(server, 'close')
  }
  return { origin: originOf(server), coordination: app.coordination, close }
}

async function nestListening(nest: INestApplication) {
  await nest.listen(0, '127.0.0.1')
  return { origin: originOf(nest.getHttpServer()), close: () => nest.close() }
}

function originOf(server: { address(): AddressInfo | string | null }): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
