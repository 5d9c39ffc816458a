"""The words of Sparring: frozen models of everything that travels. No torch, no web, no queue, no database."""
