"""The generation behind one choice of a chat.

A model that was offered tools and takes none is asked again without them: the second generation
replaces the first, whose permit it takes over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_cli.runtime.router.chat.call import ChatCall, render
from tgi_cli.runtime.router.generation import Generation
from tgi_cli.runtime.router.routes import openai
from tgi_cli.runtime.router.service import Prompt, Service
from tgi_cli.runtime.text.stop_hiding import StopStringHider

if TYPE_CHECKING:
    from types import TracebackType

    from tgi_cli.runtime.router.schemas.generate import GenerateParameters


class ChatRun:
    """A context manager; entering it admits the request, as `Service.start` does."""

    generation: Generation

    def __init__(self, service: Service, call: ChatCall, index: int) -> None:
        self.call = call
        self.index = index
        self._service = service
        self._is_open = False

    async def __aenter__(self) -> ChatRun:
        await self._start(self.call.prompt, self.call.parameters)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_open:
            self._is_open = False
            await self.generation.__aexit__(exc_type, exc, traceback)

    def stop_hider(self) -> StopStringHider | None:
        """Return what leaves a stop string out of the content, if that is wanted."""
        return openai.stop_hider(self.call.parameters, self._service.config)

    async def answer_in_words(self) -> None:
        """Begin again without tools. Raises what `Service.start` raises, and `TemplateError`."""
        prompt = await render(self._service, self.call.body, None)
        # Nothing is awaited between giving the permit back and taking it again.
        await self.__aexit__(None, None, None)
        await self._start(prompt, self.call.without_grammar())

    async def _start(self, prompt: Prompt, parameters: GenerateParameters) -> None:
        parameters = openai.parameters_of_run(parameters, self.index)
        self.generation = await self._service.start(prompt, parameters)
        self._is_open = True
