"""A worker that knows no ledger: it records into its spool, and a sidecar brings that to the books.

COSTSPAN_DRAIN=off leaves the draining to the sidecar. A job is a line of JSON on stdin, as a queue
would give it: {"tenant": "acme", "text": "hello"}.
"""

import json
import sys

from langchain_openai import ChatOpenAI

import costspan
from costspan.adapters.langchain import CostHandler

model = ChatOpenAI(model="gpt-4o-mini", callbacks=[CostHandler()])
for line in sys.stdin:
    job = json.loads(line)
    with costspan.attribute(job["tenant"]):
        answer = model.invoke(job["text"])
    print(json.dumps({"tenant": job["tenant"], "answer": str(answer.content)}), flush=True)
