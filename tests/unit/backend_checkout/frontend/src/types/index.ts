export type Priority = 'high' | 'medium' | 'low' | 'none'
export type Arbeitskreis = 'AK1' | 'AK2' | 'AK3' | 'AK4' | 'AK5' | 'QAG'

export interface LlmAnalysis {
  relevant: boolean
  relevance_score: number | null
  argumentationskette: string[]
  tags: string[]
  reasoning: string | null
}

export interface Item {
  id: number
  title: string
  url: string | null
  summary: string | null
  detailed_analysis: string | null
  priority: Priority
  assigned_aks: Arbeitskreis[]
  is_manually_reviewed: boolean
  metadata: { llm_analysis?: LlmAnalysis }
}
