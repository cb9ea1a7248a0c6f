"""An agent behind FastAPI; costspan is the lines marked so. Where the books are: see the README.

TENANT_KEYS is JSON, {"sk-…": "acme"}: whose each key is.
"""

import json
import os

from fastapi import FastAPI, HTTPException
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import costspan
from costspan.adapter import current
from costspan.adapters.asgi import AttributionMiddleware, api_keys

costspan.install("langchain")  # costspan
app = FastAPI()
app.add_middleware(  # costspan
    AttributionMiddleware, resolve=api_keys(json.loads(os.environ["TENANT_KEYS"]))
)


@tool
def search(query: str) -> str:
    """Search the handbook."""
    return f"three pages about {query}"


MODEL = ChatOpenAI(model="gpt-4o", stream_usage=True)
AGENT = create_agent(MODEL, tools=[search], name="assistant")


class Question(BaseModel):
    text: str
    session: str


@app.post("/chat")
async def chat(question: Question) -> dict[str, str]:
    tenant = current().tenant  # costspan
    if tenant is None:  # the middleware refuses nobody
        raise HTTPException(401, "no such key")
    costspan.bind(tenant, session=question.session)  # costspan
    with costspan.work("safety"):  # costspan: the platform's overhead, not the tenant's work
        await MODEL.ainvoke(f"Is this allowed? {question.text}", max_tokens=5)
    messages = {"messages": [{"role": "user", "content": question.text}]}
    answer = await AGENT.ainvoke(messages)
    return {"answer": str(answer["messages"][-1].content), "worker": str(os.getpid())}
