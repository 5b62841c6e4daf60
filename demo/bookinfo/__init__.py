"""A small book shop of four services, none of which knows that there is a gateway.

    productpage   the page of a book, made of what the others say
    details       what is known of the book: v1 knows it by heart, v2 (`../details.rb`) asks the Books API
    reviews       what readers wrote
    ratings       how many stars they gave
    page          how the page looks
    service       what the services have in common

Each listens where LISTEN says (address:port) and finds the others by their names, on port 9080.
"""
