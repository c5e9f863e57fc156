/** The type of the values that a schema accepts. It covers only the few keywords that the schemas of requests use. */
export type Typed<Schema> = Schema extends { readonly enum: readonly (infer Value)[] }
  ? Value
  : Schema extends { readonly type: 'string' }
    ? string
    : Schema extends { readonly type: 'integer' }
      ? number
      : Schema extends { readonly type: 'boolean' }
        ? boolean
        : Schema extends { readonly type: 'object'; readonly properties: infer Properties }
          ? TypedObject<Properties, RequiredOf<Schema>>
          : unknown

type RequiredOf<Schema> = Schema extends { readonly required: readonly (infer Name)[] } ? Name : never

type TypedObject<Properties, Required> = {
  readonly [Name in keyof Properties as Name extends Required ? Name : never]: Typed<Properties[Name]>
} & { readonly [Name in keyof Properties as Name extends Required ? never : Name]?: Typed<Properties[Name]> }
