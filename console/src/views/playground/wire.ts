// until the API has it
export interface LabelScore { label: string; score: number }
export interface FieldError { pointer: string; message: string }
export interface ZeroShotResponse { results: (LabelScore[] | null)[]; model: string; errors: FieldError[] }
export interface Hit { id: string; score: number; metadata: Record<string, unknown> }
export interface SearchResponse { hits: Hit[]; model: string; kind: string; generation: number }
export interface LabelSetSummary { name: string; labels: number; templates: number }
